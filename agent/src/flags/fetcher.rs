//! The flags that concern what is fetched into sandboxes.

use std::path::PathBuf;

use clap::Args;
use tepui_api::units::{Bytes, Duration};

/// The flags that concern what is fetched into sandboxes.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Fetcher")]
pub struct FetcherFlags {
    /// Directory of files that were fetched with 'cache'. The agent empties the part of it that belongs to its work directory when it starts.
    /// By default a directory below the work directory (Mesos: /tmp/mesos/fetch)
    #[arg(long = "fetcher_cache_dir", value_name = "DIR")]
    pub fetcher_cache_dir: Option<PathBuf>,

    /// How much may be in it; 0 fetches everything anew
    #[arg(long = "fetcher_cache_size", value_name = "BYTES", default_value = "2GB")]
    pub fetcher_cache_size: Bytes,

    /// How long a download may go without a byte until it is given up
    #[arg(long = "fetcher_stall_timeout", value_name = "DURATION", default_value = "1mins")]
    pub fetcher_stall_timeout: Duration,

    /// Directory that relative paths among URIs are relative to; without it they are refused
    #[arg(long = "frameworks_home", value_name = "DIR")]
    pub frameworks_home: Option<PathBuf>,
}

// === impl FetcherFlags ===

impl FetcherFlags {
    /// Each flag, with its value as text, sorted by name.
    pub(super) fn table(&self) -> Vec<(&'static str, Option<String>)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        vec![
            ("fetcher_cache_dir", path(&self.fetcher_cache_dir)),
            ("fetcher_cache_size", Some(self.fetcher_cache_size.to_string())),
            ("fetcher_stall_timeout", Some(self.fetcher_stall_timeout.to_string())),
            ("frameworks_home", path(&self.frameworks_home)),
        ]
    }
}
