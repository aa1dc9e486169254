//! What `tepui run` is asked to do.

use std::path::PathBuf;

use clap::Args;

/// Run a command as a task of a cluster, and stay with it until it ends.
///
/// Without --coordinator, a coordinator and an agent are started inside this process (this needs
/// root), and stopped when the task has ended. The task's output is shown as it comes; the exit
/// code is the task's own. Ctrl-C kills the task.
#[derive(Args, Debug, Clone)]
#[command(after_help = "Examples:
  tepui run -- sh -c 'echo hello from $MESOS_TASK_ID'
  tepui run --image=debian:12 --mem=256 -- cat /etc/os-release
  tepui run --image=/images/app.tar --env=LEVEL=debug --instances=3
  tepui run --coordinator=10.0.0.1:5050 --role=web --cpus=2 -- ./server --port 8080")]
pub struct RunArgs {
    /// The coordinator of the cluster to run on, or zk://HOST:PORT,.../PATH, where ZooKeeper tells which one leads; without
    /// it, an embedded one
    #[arg(
        long,
        aliases = ["master", "zk"],
        value_name = "HOST:PORT|URL",
        env = "TEPUI_COORDINATOR",
        hide_env_values = true
    )]
    pub coordinator: Option<String>,
    /// CPUs for each instance; fractions are fine
    #[arg(long, default_value_t = 1.0, value_parser = amount)]
    pub cpus: f64,
    /// Memory for each instance, in MB
    #[arg(long, default_value_t = 128.0, value_parser = amount)]
    pub mem: f64,
    /// Disk space for each instance, in MB
    #[arg(long, default_value_t = 64.0, value_parser = amount)]
    pub disk: f64,
    /// Image for the root file system: a name as Docker reads it, or the absolute path of a `docker
    /// save` archive or an OCI layout. Without it the task sees the host's root file system
    #[arg(long, value_name = "NAME|PATH")]
    pub image: Option<String>,
    /// Environment variable of the task; NAME alone takes this shell's value. May be repeated
    #[arg(long, short = 'e', value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Role whose resources to use
    #[arg(long, default_value = "*")]
    pub role: String,
    /// Name of the task; its id is made from it
    #[arg(long, value_parser = task_name)]
    pub name: Option<String>,
    /// How many instances of the task to run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub instances: u32,
    /// User to run as, on the agent; by default, who runs this
    #[arg(long)]
    pub user: Option<String>,
    /// Registry for image names without one (embedded agent only)
    #[arg(long, value_name = "URL|DIR")]
    pub docker_registry: Option<String>,
    /// Where the embedded agent keeps unpacked images between runs
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tepui/images")]
    pub image_store: PathBuf,
    /// Keep the embedded agent's work directory, with the sandbox, here; otherwise it is removed
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Show nothing but the task's own output
    #[arg(long, short)]
    pub quiet: bool,
    /// The command and its arguments. With --image it may be left out: the image has its own
    #[arg(trailing_var_arg = true, value_name = "CMD", required_unless_present = "image")]
    pub command: Vec<String>,
}

fn amount(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 && number < 1e12 => Ok(number),
        _ => Err("must be a number above 0, such as 0.5 or 128".to_owned()),
    }
}

/// Task ids are file names on the agent.
fn task_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= 200
        && text != "."
        && text != ".."
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if fits { Ok(text.to_owned()) } else { Err("must be letters, digits, '.', '_' or '-'".to_owned()) }
}
