//! Merges what a task says with what its image says, by the rules of Mesos' `docker/runtime` isolator.
//!
//! All functions are pure. The table of commands is that of Mesos' page on container images:
//!
//! | task | image | executable and arguments |
//! | --- | --- | --- |
//! | shell, value | any | `/bin/sh -c value` |
//! | shell, no value | any | error |
//! | value, arguments | any | `value`, with the arguments as the whole argv |
//! | no value | entrypoint | the entrypoint, then the task's arguments, or `cmd` if it has none |
//! | no value | only cmd | `cmd[0]`, then the task's arguments, or the rest of `cmd` if it has none |
//! | no value | neither | error |

use crate::config::ImageConfig;

/// The parts of a task's `CommandInfo` that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandInput<'a> {
    /// Whether `value` is a line for the shell. Mesos' default is true.
    pub shell: bool,
    /// The line for the shell, or the path of the executable.
    pub value: Option<&'a str>,
    /// Arguments. With a value they are the whole argv, beginning with argv\[0\]; without, they follow the image's.
    pub arguments: &'a [String],
}

/// What to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchCommand {
    /// The executable, to be looked up in `PATH` when it has no slash.
    pub path: String,
    /// All arguments, beginning with argv\[0\]. Never empty.
    pub argv: Vec<String>,
}

/// Why there is nothing to execute.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommandError {
    /// A shell without a line for it.
    #[error("the command is for the shell but has no value")]
    ShellWithoutValue,
    /// Nobody names an executable.
    #[error("no executable is found: the command has no value, and the image has neither entrypoint nor cmd")]
    NoExecutable,
}

/// The command that a task runs. Give `None` for a task without an image, or when the image's settings are to be
/// ignored (`--docker_ignore_runtime`).
///
/// # Errors
/// When the task and the image together name nothing to execute.
pub fn merge_command(
    task: CommandInput<'_>,
    image: Option<&ImageConfig>,
) -> Result<LaunchCommand, CommandError> {
    match task {
        CommandInput { shell: true, value: None, .. } => Err(CommandError::ShellWithoutValue),
        CommandInput { shell: true, value: Some(line), .. } => Ok(LaunchCommand {
            path: "/bin/sh".to_owned(),
            argv: vec!["sh".to_owned(), "-c".to_owned(), line.to_owned()],
        }),
        CommandInput { shell: false, value: Some(path), arguments } => {
            // Mesos executes with an empty argv here; what the kernel makes of that has changed, and no program expects it.
            let argv = if arguments.is_empty() { vec![path.to_owned()] } else { arguments.to_vec() };
            Ok(LaunchCommand { path: path.to_owned(), argv })
        }
        CommandInput { shell: false, value: None, arguments } => from_image(arguments, image),
    }
}

fn from_image(arguments: &[String], image: Option<&ImageConfig>) -> Result<LaunchCommand, CommandError> {
    let (entrypoint, cmd) = image.map_or((&[][..], &[][..]), |image| (&image.entrypoint[..], &image.cmd[..]));
    let (fixed, default) = match (entrypoint, cmd) {
        ([_, ..], cmd) => (entrypoint, cmd),
        ([], [_, ..]) => cmd.split_at(1),
        ([], []) => return Err(CommandError::NoExecutable),
    };
    let rest = if arguments.is_empty() { default } else { arguments };
    let argv: Vec<String> = fixed.iter().chain(rest).cloned().collect();
    Ok(LaunchCommand { path: fixed[0].clone(), argv })
}

/// The image's environment with the task's over it, in the image's order and then the task's. Entries of the image
/// without a `=` are passed over, as Mesos does.
pub fn merge_environment<N: AsRef<str>, V: AsRef<str>>(
    image: Option<&ImageConfig>,
    task: impl IntoIterator<Item = (N, V)>,
) -> Vec<(String, String)> {
    let from_image = image.into_iter().flat_map(|image| &image.env).filter_map(|entry| entry.split_once('='));
    let mut merged: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match merged.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => merged.push((name.to_owned(), value.to_owned())),
    };
    from_image.for_each(|(name, value)| set(name, value));
    task.into_iter().for_each(|(name, value)| set(name.as_ref(), value.as_ref()));
    merged
}

/// Where the command starts: the image's working directory, or `default` (the sandbox) when it names none.
pub fn working_directory(image: Option<&ImageConfig>, default: &str) -> String {
    match image.map_or("", |image| image.working_dir.as_str()) {
        "" => default.to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("/{relative}"),
    }
}

/// Whom the command runs as: the user the task names, else the one the image names. Mesos always has one from the
/// task or its framework, so with it the image's never counts.
pub fn merge_user<'a>(task: Option<&'a str>, image: Option<&'a ImageConfig>) -> Option<&'a str> {
    task.filter(|user| !user.is_empty())
        .or_else(|| image.map(|image| image.user.as_str()).filter(|user| !user.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn image(entrypoint: &[&str], cmd: &[&str]) -> ImageConfig {
        ImageConfig { entrypoint: strings(entrypoint), cmd: strings(cmd), ..ImageConfig::default() }
    }

    fn merged(
        shell: bool,
        value: Option<&str>,
        arguments: &[&str],
        image: &ImageConfig,
    ) -> Result<Vec<String>, CommandError> {
        let arguments = strings(arguments);
        let command = merge_command(CommandInput { shell, value, arguments: &arguments }, Some(image))?;
        let mut all = vec![command.path];
        all.extend(command.argv);
        Ok(all)
    }

    /// Every cell of Mesos' table; the first string is the executable and the rest argv.
    #[test]
    fn the_table_of_mesos_holds() {
        let images = [
            image(&[], &[]),
            image(&[], &["c0", "c1"]),
            image(&["e0", "e1"], &[]),
            image(&["e0", "e1"], &["c0", "c1"]),
        ];
        type Row<'a> = (bool, Option<&'a str>, &'a [&'a str], [Option<&'a [&'a str]>; 4]);
        let rows: &[Row<'_>] = &[
            (
                false,
                None,
                &[],
                [
                    None,
                    Some(&["c0", "c0", "c1"]),
                    Some(&["e0", "e0", "e1"]),
                    Some(&["e0", "e0", "e1", "c0", "c1"]),
                ],
            ),
            (
                false,
                None,
                &["a", "b"],
                [
                    None,
                    Some(&["c0", "c0", "a", "b"]),
                    Some(&["e0", "e0", "e1", "a", "b"]),
                    Some(&["e0", "e0", "e1", "a", "b"]),
                ],
            ),
            (false, Some("v"), &[], [Some(&["v", "v"]); 4]),
            (false, Some("v"), &["a", "b"], [Some(&["v", "a", "b"]); 4]),
            (true, None, &[], [None; 4]),
            (true, None, &["a"], [None; 4]),
            (true, Some("v w"), &[], [Some(&["/bin/sh", "sh", "-c", "v w"]); 4]),
            (true, Some("v w"), &["a"], [Some(&["/bin/sh", "sh", "-c", "v w"]); 4]),
        ];
        for (shell, value, arguments, expected) in rows {
            for (image, expected) in images.iter().zip(expected) {
                let actual = merged(*shell, *value, arguments, image).ok();
                assert_eq!(
                    actual,
                    expected.map(strings),
                    "shell={shell} value={value:?} arguments={arguments:?} {image:?}"
                );
            }
        }
    }

    #[test]
    fn errors_say_what_is_missing() {
        let none = ImageConfig::default();
        assert_eq!(merged(true, None, &[], &none), Err(CommandError::ShellWithoutValue));
        assert_eq!(merged(false, None, &["a"], &none), Err(CommandError::NoExecutable));
        assert_eq!(
            merge_command(CommandInput { shell: false, value: None, arguments: &[] }, None),
            Err(CommandError::NoExecutable)
        );
    }

    #[test]
    fn the_tasks_environment_wins() {
        let config = ImageConfig {
            env: strings(&["PATH=/bin", "broken", "EMPTY=", "A=b=c", "PATH=/usr/bin"]),
            ..ImageConfig::default()
        };
        let merged = merge_environment(Some(&config), [("A", "task"), ("NEW", "1")]);
        let expected = [("PATH", "/usr/bin"), ("EMPTY", ""), ("A", "task"), ("NEW", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(merged, expected);
        assert!(merge_environment::<&str, &str>(None, []).is_empty());
    }

    #[test]
    fn directory_and_user_fall_back() {
        let config = ImageConfig { working_dir: "/srv".into(), user: "app".into(), ..ImageConfig::default() };
        assert_eq!(working_directory(Some(&config), "/mnt/mesos/sandbox"), "/srv");
        assert_eq!(
            working_directory(Some(&ImageConfig::default()), "/mnt/mesos/sandbox"),
            "/mnt/mesos/sandbox"
        );
        assert_eq!(working_directory(None, "/x"), "/x");
        let relative = ImageConfig { working_dir: "srv".into(), ..ImageConfig::default() };
        assert_eq!(working_directory(Some(&relative), "/x"), "/srv");
        assert_eq!(merge_user(Some("root"), Some(&config)), Some("root"));
        assert_eq!(merge_user(None, Some(&config)), Some("app"));
        assert_eq!(merge_user(None, Some(&ImageConfig::default())), None);
    }
}
