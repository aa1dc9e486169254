//! A coordinator and an agent inside this process, for `tepui run` without a cluster.
