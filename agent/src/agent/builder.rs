//! An agent with isolators of one's own: [`Agent::builder`].

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use tepui_isolators::{Custom, CustomError, Host, Isolator};
use tepui_server::{About, Flags, ServerError};
use tepui_shim::{Zygote, ZygoteError};

use super::threads::Workers;
use super::{Running, StartError, make_work_dir, native, start_over};
use crate::containerizer::docker::DockerContainerizer;
use crate::containerizer::{self, Composing, NativeContainerizer};
use crate::flags::{NOT_IMPLEMENTED, Settings};

/// The way to a [`Builder`].
#[derive(Debug, Clone, Copy)]
pub struct Agent;

/// An agent to be started, with isolators of one's own.
///
/// A program that is an agent with all flags of `tepui agent`, and one isolator more:
///
/// ```no_run
/// # use std::convert::Infallible;
/// # struct Mine;
/// # impl tepui_isolators::Isolator for Mine { fn name(&self) -> &str { "mine" } }
/// fn main() -> std::process::ExitCode {
///     tepui_agent::Agent::builder().isolator("mine", |_host| Ok::<_, Infallible>(Mine)).main()
/// }
/// ```
#[derive(Default)]
pub struct Builder {
    isolators: Vec<Custom>,
}

/// Why an agent has not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its flags make no sense, or it is not root.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// It cannot make containers.
    #[error(transparent)]
    Zygote(#[from] ZygoteError),
    /// It cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
}

// === impl Agent ===

impl Agent {
    /// An agent without isolators of one's own.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }
}

// === impl Builder ===

impl Builder {
    /// Adds an isolator, which is switched on by its name in `--isolation`, as the built-in ones are, and acts after those. It is made once
    /// the agent knows its directories and cgroups ([`Host`]); if that fails, the agent does not start.
    #[must_use]
    pub fn isolator<I, E>(
        mut self,
        name: impl Into<String>,
        make: impl FnOnce(&Host) -> Result<I, E> + Send + 'static,
    ) -> Self
    where
        I: Isolator + 'static,
        E: Into<CustomError>,
    {
        let make = move |host: &Host| -> Result<Arc<dyn Isolator>, CustomError> {
            let made = make(host).map_err(Into::into)?;
            Ok(Arc::new(made))
        };
        self.isolators.push(Custom::named(name, make));
        self
    }

    /// The whole of a program: reads the command line, runs the agent until it is told to stop, and gives the program's exit code. To be
    /// called first of all in `main`, as it forks while the process has one thread.
    #[must_use]
    pub fn main(self) -> ExitCode {
        let mut words = std::env::args_os();
        let shown = words.next().unwrap_or_default();
        let shown =
            std::path::Path::new(&shown).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let given: Vec<OsString> = words.collect();
        match self.run(&shown, &given) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{shown}: {error}");
                ExitCode::FAILURE
            }
        }
    }

    /// Runs the agent with these flags until it is told to stop. Its containers go on. `shown` is how users call the program.
    ///
    /// # Errors
    /// When the flags make no sense, without root, or when it cannot start.
    pub fn run(self, shown: &str, given: &[OsString]) -> Result<(), RunError> {
        let about = About {
            shown,
            about: "Offers this machine's resources to a coordinator and runs tasks in containers",
            absent: NOT_IMPLEMENTED,
        };
        let flags: Flags<Settings> = tepui_server::parse(about, given)?;
        tepui_server::need_root(shown)?;
        // Forked while this process has one thread and little memory.
        let zygote = Zygote::fork()?;
        tepui_server::log(flags.log.level());
        tepui_server::runtime()?.block_on(async {
            let running = self.start(flags.settings, zygote).await?;
            tepui_server::announce(running.address());
            tokio::select! {
                stop = tepui_server::asked_to_stop() => stop?,
                end = running.ended() => tracing::warn!(?end, "the agent ends"),
            }
            running.stop().await;
            Ok(())
        })
    }

    /// Starts the agent. The zygote was forked before this process had a second thread.
    ///
    /// # Errors
    /// When a setting is wrong, the address is in use, the state on disk cannot be read or belongs to another agent, or
    /// containers cannot be made on this machine.
    pub async fn start(self, mut settings: Settings, zygote: Zygote) -> Result<Running, StartError> {
        settings.work_dir = make_work_dir(&settings.work_dir)?;
        let native = native::settings(&settings)?;
        if settings.cgroups_favor_dynmods
            && let Err(error) = tepui_isolators::cgroups::favor_dynmods(true)
        {
            tracing::info!(%error, "containers start some milliseconds later than they could");
        }
        let mut isolators = self.isolators;
        isolators.extend(settings.isolator_plugins.customs());
        let workers = Workers::start().map_err(StartError::Threads)?;
        let (containerizer, ends) = workers.within(|| {
            let made = NativeContainerizer::with_isolators(native, zygote, isolators);
            made.map(|(containerizer, exits)| (containerizer, containerizer::forward(exits)))
                .map_err(|error| StartError::Containerizer(error.to_string()))
        })?;
        let (docker, ends) = match settings.containerizer.containerizers.docker {
            true => {
                let (docker, told) = workers.within(|| DockerContainerizer::new(native::docker(&settings)));
                (Some(docker), workers.within(|| containerizer::merged(ends, told)))
            }
            false => (None, ends),
        };
        let all = Composing::new(settings.containerizer.containerizers, containerizer, docker);
        start_over(settings, Arc::new(all), ends, workers).await
    }
}

/// Starts an agent with what `--isolation` and `--isolator_plugin` name.
///
/// # Errors
/// As [`Builder::start`].
pub async fn start(settings: Settings, zygote: Zygote) -> Result<Running, StartError> {
    Agent::builder().start(settings, zygote).await
}
