//! The flags of isolators that are programs of their own.

use clap::Args;
use tepui_isolators::Custom;
use tepui_isolators::plugin::{Plugin, PluginSettings, Timeouts};

/// Which plugins there are, and how long they may take.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct IsolatorPlugins {
    /// An isolator that is a program of its own: NAME=unix:///PATH of the socket at which it listens, or NAME=/PATH of a
    /// program that the agent starts. Can be given several times, or as a list split by commas. Not a flag of Mesos
    #[arg(
        long = "isolator_plugin",
        value_name = "NAME=TARGET",
        value_delimiter = ',',
        help_heading = "Containers"
    )]
    pub isolator_plugin: Vec<PluginSettings>,

    /// How long such an isolator may take to answer: a duration for all calls, CALL=DURATION for one, several split by
    /// commas. Not a flag of Mesos
    #[arg(long = "isolator_plugin_timeout", value_name = "DURATIONS", default_value_t = Timeouts::default(),
          help_heading = "Containers")]
    pub isolator_plugin_timeout: Timeouts,
}

// === impl IsolatorPlugins ===

impl IsolatorPlugins {
    /// Each flag that has a value, with that value as text.
    pub(super) fn table(&self) -> [(&'static str, Option<String>); 2] {
        let plugins: Vec<String> = self.isolator_plugin.iter().map(ToString::to_string).collect();
        [
            ("isolator_plugin", (!plugins.is_empty()).then(|| plugins.join(","))),
            ("isolator_plugin_timeout", Some(self.isolator_plugin_timeout.to_string())),
        ]
    }

    /// The isolators that they make.
    pub(crate) fn customs(&self) -> impl Iterator<Item = Custom> {
        let plugins = self.isolator_plugin.iter().cloned();
        plugins.map(|plugin| Plugin::custom(plugin, self.isolator_plugin_timeout))
    }
}
