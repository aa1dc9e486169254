//! Shares the cluster's free resources out among the frameworks.
