//! Compiles `proto/` into Rust types with serde implementations that follow Mesos' JSON mapping.
//!
//! From one set of descriptors come three things: the prost structs, serde attributes that pick a
//! [`crate::json`] adapter for every field, and the tables by which [`crate::shape`] finds a
//! missing `required` field in protobuf input (prost itself fills it with a default).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

type Error = Box<dyn std::error::Error>;

/// Fields with a default that Mesos marks deprecated: unlike other defaults, these are not written
/// to JSON when unset (`json(ObjectWriter*, const Protobuf&)` in Mesos' stout).
const DEPRECATED_DEFAULTS: &[&str] = &[".mesos.v1.FrameworkInfo.role", ".mesos.v1.Resource.role"];

/// Repeated fields that Mesos' own writers (`ReadOnlyHandler`) emit even when they are empty.
const ALWAYS_EMITTED: &[&str] = &[
    ".mesos.v1.master.Response.GetAgents.recovered_agents",
    ".mesos.v1.master.Response.GetAgents.agents",
    ".mesos.v1.master.Response.GetExecutors.executors",
    ".mesos.v1.master.Response.GetFrameworks.frameworks",
    ".mesos.v1.master.Response.GetFrameworks.completed_frameworks",
    ".mesos.v1.master.Response.GetTasks.tasks",
    ".mesos.v1.master.Response.GetTasks.completed_tasks",
    ".mesos.v1.master.Response.GetTasks.unreachable_tasks",
    ".mesos.v1.master.Response.GetOperations.operations",
    ".mesos.v1.agent.Response.GetContainers.containers",
    ".mesos.v1.agent.Response.GetExecutors.completed_executors",
    ".mesos.v1.agent.Response.GetExecutors.executors",
    ".mesos.v1.agent.Response.GetFrameworks.frameworks",
    ".mesos.v1.agent.Response.GetFrameworks.completed_frameworks",
];

/// Messages used as keys, for which an order is wanted.
const ORDERED: &[&str] = &[
    "FrameworkID",
    "OfferID",
    "AgentID",
    "TaskID",
    "ExecutorID",
    "ContainerID",
    "OperationID",
    "ResourceProviderID",
];

fn main() -> Result<(), Error> {
    let root = Path::new("proto");
    let mut files = Vec::new();
    proto_files(root, &mut files)?;
    files.sort();
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");

    let set = protox::compile(&files, [root])?;
    let model = Model::new(&set);

    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    config.compile_well_known_types();
    for package in [".mesos", ".google"] {
        config.message_attribute(package, "#[derive(serde::Serialize, serde::Deserialize)]");
    }
    for id in ORDERED {
        config.message_attribute(format!(".mesos.v1.{id}"), "#[derive(PartialOrd, Ord)]");
    }
    // prost does not derive these for a message that contains itself.
    config.message_attribute(".mesos.v1.ContainerID", "#[derive(Eq, Hash)]");
    for message in &model.messages {
        for field in &message.descriptor.field {
            let path = format!("{}.{}", message.name, field.name());
            config.field_attribute(&path, model.serde_attribute(&path, field));
            // Those named after the kernel's counters: OutSegs and its like.
            if field.name() != field.name().to_snake_case() {
                config.field_attribute(&path, format!("#[serde(rename = \"{}\")]", field.name()));
            }
        }
    }
    config.include_file("_includes.rs");
    config.compile_fds(set.clone())?;

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("_tables.rs"), model.tables()?)?;
    Ok(())
}

fn proto_files(dir: &Path, into: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            into.push(path);
        }
    }
    Ok(())
}

struct Message<'a> {
    /// Fully qualified, with a leading dot.
    name: String,
    descriptor: &'a DescriptorProto,
}

struct Model<'a> {
    messages: Vec<Message<'a>>,
    enums: Vec<(String, &'a EnumDescriptorProto)>,
    /// From a message's name to its place in `messages`.
    index: BTreeMap<String, usize>,
    /// Map entry types, which prost turns into maps: no structs of their own.
    entries: BTreeMap<String, &'a DescriptorProto>,
}

impl<'a> Model<'a> {
    fn new(set: &'a FileDescriptorSet) -> Self {
        let mut model =
            Model { messages: vec![], enums: vec![], index: BTreeMap::new(), entries: BTreeMap::new() };
        // The link between coordinator and agent is only ever protobuf.
        for file in set.file.iter().filter(|f| !f.package().starts_with("tepui.")) {
            let prefix = format!(".{}", file.package());
            for message in &file.message_type {
                model.add(&prefix, message);
            }
            for e in &file.enum_type {
                model.enums.push((format!("{prefix}.{}", e.name()), e));
            }
        }
        model
    }

    fn add(&mut self, prefix: &str, descriptor: &'a DescriptorProto) {
        let name = format!("{prefix}.{}", descriptor.name());
        for nested in &descriptor.nested_type {
            self.add(&name, nested);
        }
        for e in &descriptor.enum_type {
            self.enums.push((format!("{name}.{}", e.name()), e));
        }
        if descriptor.options.as_ref().is_some_and(|o| o.map_entry()) {
            self.entries.insert(name, descriptor);
            return;
        }
        self.index.insert(name.clone(), self.messages.len());
        self.messages.push(Message { name, descriptor });
    }

    /// The [`crate::json`] adapter for values of this field, as a Rust type.
    fn adapter(&self, field: &FieldDescriptorProto) -> String {
        match field.r#type() {
            Type::Double => "crate::json::Double".into(),
            Type::Float => "crate::json::Float".into(),
            Type::Bool => "crate::json::Bool".into(),
            Type::String => "crate::json::Text".into(),
            Type::Bytes => "crate::json::Base64".into(),
            Type::Enum => format!("crate::json::Enum<{}>", rust_path(field.type_name())),
            Type::Message | Type::Group => format!("crate::json::Message<{}>", rust_path(field.type_name())),
            Type::Int32 | Type::Sint32 | Type::Sfixed32 => "crate::json::Int<i32>".into(),
            Type::Uint32 | Type::Fixed32 => "crate::json::Int<u32>".into(),
            Type::Int64 | Type::Sint64 | Type::Sfixed64 => "crate::json::Int<i64>".into(),
            Type::Uint64 | Type::Fixed64 => "crate::json::Int<u64>".into(),
        }
    }

    fn serde_attribute(&self, path: &str, field: &FieldDescriptorProto) -> String {
        if let Some(entry) = self.entries.get(field.type_name()) {
            let adapter = self.adapter(&entry.field[1]);
            return format!(
                "#[serde(default, skip_serializing_if = \"std::collections::BTreeMap::is_empty\", \
                 serialize_with = \"crate::json::write_map::<_, {adapter}>\", \
                 deserialize_with = \"crate::json::read_map::<_, {adapter}>\")]"
            );
        }
        let adapter = self.adapter(field);
        let boxed = self.is_boxed(path, field);
        match field.label() {
            Label::Required => format!(
                "#[serde(serialize_with = \"crate::json::write::<_, {adapter}>\", \
                 deserialize_with = \"crate::json::read::<_, {adapter}>\")]"
            ),
            Label::Repeated => {
                let skip = if ALWAYS_EMITTED.contains(&path) {
                    ""
                } else {
                    "skip_serializing_if = \"Vec::is_empty\", "
                };
                format!(
                    "#[serde(default, {skip}serialize_with = \"crate::json::write_repeated::<_, {adapter}>\", \
                     deserialize_with = \"crate::json::read_repeated::<_, {adapter}>\")]"
                )
            }
            Label::Optional if field.default_value.is_some() && !DEPRECATED_DEFAULTS.contains(&path) => {
                format!(
                    "#[serde(default, serialize_with = \"crate::json::defaults::{}\", \
                 deserialize_with = \"crate::json::read_optional::<_, {adapter}>\")]",
                    default_fn(path)
                )
            }
            Label::Optional => {
                let (write, read) =
                    if boxed { ("write_boxed", "read_boxed") } else { ("write_optional", "read_optional") };
                let unset = match field.r#type() {
                    Type::Enum => format!("crate::json::is_unset::<{adapter}>"),
                    _ => String::from("Option::is_none"),
                };
                format!(
                    "#[serde(default, skip_serializing_if = \"{unset}\", \
                     serialize_with = \"crate::json::{write}::<_, {adapter}>\", \
                     deserialize_with = \"crate::json::{read}::<_, {adapter}>\")]"
                )
            }
        }
    }

    /// prost boxes an optional message that can contain its own parent.
    fn is_boxed(&self, path: &str, field: &FieldDescriptorProto) -> bool {
        if field.r#type() != Type::Message {
            return false;
        }
        let owner = &path[..path.rfind('.').unwrap_or(0)];
        let mut seen = vec![field.type_name().to_owned()];
        let mut next = 0;
        while next < seen.len() {
            let name = seen[next].clone();
            next += 1;
            if name == owner {
                return true;
            }
            let Some(&at) = self.index.get(&name) else { continue };
            for f in &self.messages[at].descriptor.field {
                let plain = f.r#type() == Type::Message && f.label() != Label::Repeated;
                if plain && !seen.iter().any(|s| s == f.type_name()) {
                    seen.push(f.type_name().to_owned());
                }
            }
        }
        false
    }

    fn tables(&self) -> Result<String, Error> {
        let mut out = String::new();
        writeln!(out, "/// Every message, by its place.\npub(crate) static MESSAGES: &[MessageShape] = &[")?;
        let mut entry_shapes: BTreeMap<&str, usize> = BTreeMap::new();
        for (n, name) in self.entries.keys().enumerate() {
            entry_shapes.insert(name, self.messages.len() + n);
        }
        for message in &self.messages {
            self.shape(&mut out, &message.name, message.descriptor, &entry_shapes)?;
        }
        for (name, descriptor) in &self.entries {
            self.shape(&mut out, name, descriptor, &entry_shapes)?;
        }
        writeln!(out, "];")?;
        for (place, message) in self.messages.iter().enumerate() {
            let name = message.name.trim_start_matches('.');
            writeln!(
                out,
                "impl crate::codec::Wire for {} {{ const NAME: &'static str = {name:?}; const SHAPE: usize = {place}; }}",
                rust_path(&message.name)
            )?;
        }
        for (name, _) in &self.enums {
            let path = rust_path(name);
            writeln!(
                out,
                "impl crate::json::NamedEnum for {path} {{\n\
                 fn number(name: &str) -> Option<i32> {{ {path}::from_str_name(name).map(|e| e as i32) }}\n\
                 fn name(number: i32) -> Option<&'static str> {{ {path}::try_from(number).ok().map(|e| e.as_str_name()) }}\n}}"
            )?;
        }
        self.defaults(&mut out)?;
        self.walk_all(&mut out)?;
        Ok(out)
    }

    /// A macro that names every message, for tests that go through all of them.
    fn walk_all(&self, out: &mut String) -> Result<(), Error> {
        writeln!(
            out,
            "/// Calls the given macro once for every message type.\n#[cfg(test)]\n#[allow(unused_macros)]\nmacro_rules! for_each_message {{ ($m:ident) => {{"
        )?;
        for message in &self.messages {
            writeln!(out, "$m!({});", rust_path(&message.name))?;
        }
        writeln!(out, "}} }}\n#[cfg(test)]\n#[allow(unused_imports)]\npub(crate) use for_each_message;")?;
        Ok(())
    }

    fn shape(
        &self,
        out: &mut String,
        name: &str,
        descriptor: &DescriptorProto,
        entries: &BTreeMap<&str, usize>,
    ) -> Result<(), Error> {
        writeln!(out, "MessageShape {{ name: {:?}, fields: &[", name.trim_start_matches('.'))?;
        for field in &descriptor.field {
            let kind = match field.r#type() {
                Type::Message | Type::Group => {
                    let at = self.index.get(field.type_name()).or_else(|| entries.get(field.type_name()));
                    format!(
                        "Kind::Message({})",
                        at.ok_or_else(|| format!("unknown type {}", field.type_name()))?
                    )
                }
                Type::Enum => {
                    let (_, e) =
                        self.enums.iter().find(|(n, _)| n == field.type_name()).ok_or("unknown enum")?;
                    let numbers: Vec<String> = e.value.iter().map(|v| v.number().to_string()).collect();
                    format!("Kind::Enum(&[{}])", numbers.join(", "))
                }
                Type::Double => "Kind::Double".into(),
                Type::Float => "Kind::Float".into(),
                Type::Bool => "Kind::Bool".into(),
                Type::String => "Kind::Text".into(),
                Type::Bytes => "Kind::Bytes".into(),
                _ => "Kind::Integer".into(),
            };
            let label = match field.label() {
                Label::Required => "Label::Required",
                Label::Optional => "Label::Optional",
                Label::Repeated => "Label::Repeated",
            };
            writeln!(
                out,
                "FieldShape {{ number: {}, name: {:?}, label: {label}, kind: {kind} }},",
                field.number(),
                field.name()
            )?;
        }
        writeln!(out, "] }},")?;
        Ok(())
    }

    fn defaults(&self, out: &mut String) -> Result<(), Error> {
        writeln!(
            out,
            "/// Writers of unset fields that have a default: Mesos writes the default.\npub mod serialize_defaults {{"
        )?;
        for message in &self.messages {
            for field in message.descriptor.field.iter().filter(|f| f.default_value.is_some()) {
                if field.label() != Label::Optional {
                    continue;
                }
                let path = format!("{}.{}", message.name, field.name());
                if DEPRECATED_DEFAULTS.contains(&path.as_str()) {
                    continue;
                }
                let text = field.default_value();
                let (ty, value) = match field.r#type() {
                    Type::Double => ("f64".to_owned(), format!("{text}f64")),
                    Type::Bool => ("bool".to_owned(), text.to_owned()),
                    Type::String => ("String".to_owned(), format!("String::from({text:?})")),
                    Type::Int32 => ("i32".to_owned(), text.to_owned()),
                    Type::Uint32 => ("u32".to_owned(), text.to_owned()),
                    Type::Enum => {
                        let (_, e) =
                            self.enums.iter().find(|(n, _)| n == field.type_name()).ok_or("unknown enum")?;
                        let number = e.value.iter().find(|v| v.name() == text).map(|v| v.number());
                        ("i32".to_owned(), number.ok_or("unknown default")?.to_string())
                    }
                    other => return Err(format!("no default writer for {other:?} of {path}").into()),
                };
                let adapter = self.adapter(field);
                writeln!(
                    out,
                    "pub(crate) fn {}<S: serde::Serializer>(value: &Option<{ty}>, to: S) -> Result<S::Ok, S::Error> {{\n\
                     match value {{ Some(v) if <{adapter} as crate::json::Adapter>::is_known(v) => crate::json::write::<_, {adapter}>(v, to), _ => crate::json::write::<_, {adapter}>(&{value}, to) }} }}",
                    default_fn(&path)
                )?;
            }
        }
        writeln!(out, "}}")?;
        Ok(())
    }
}

fn default_fn(path: &str) -> String {
    path.trim_start_matches('.').replace('.', "_").to_snake_case()
}

/// `.mesos.v1.TaskStatus.Reason` → `crate::types::mesos::v1::task_status::Reason`.
fn rust_path(name: &str) -> String {
    let parts: Vec<&str> = name.trim_start_matches('.').split('.').collect();
    let mut out = String::from("crate::types");
    for (i, part) in parts.iter().enumerate() {
        out.push_str("::");
        if i + 1 == parts.len() {
            out.push_str(&part.to_upper_camel_case());
        } else {
            out.push_str(&part.to_snake_case());
        }
    }
    out
}
