//! The contract reference, `engine/docs/reference/contract.md`, is generated from the contract.
//! `UPDATE_REFERENCE=1 cargo test -p engine reference` writes it anew.

use std::fmt::Write as _;

use wit_parser::{Docs, Function, Interface, Resolve, Type, TypeDef, TypeDefKind};

use crate::support::root;

const INTRODUCTION: &str = "# Contract reference

Generated from [wit/strategy.wit](../../../wit/strategy.wit); do not edit. [Write a strategy](../guide/strategies.md) explains by example what is listed here, and the [version policy](versions.md) says what may change.

";

/// A type as it is written where it is used.
fn name(resolve: &Resolve, ty: &Type) -> String {
    let Type::Id(id) = ty else {
        return match ty {
            Type::Bool => "bool",
            Type::U32 => "u32",
            Type::F64 => "f64",
            Type::String => "string",
            // The contract's own rule: guest languages disagree about the others.
            other => panic!("the contract has no {other:?}"),
        }
        .to_owned();
    };
    let def = &resolve.types[*id];
    if let Some(name) = &def.name {
        return name.clone();
    }
    match &def.kind {
        TypeDefKind::List(inner) => format!("list<{}>", name(resolve, inner)),
        TypeDefKind::Option(inner) => format!("option<{}>", name(resolve, inner)),
        TypeDefKind::Result(result) => {
            let part = |ty: &Option<Type>| ty.as_ref().map_or("_".to_owned(), |t| name(resolve, t));
            format!("result<{}, {}>", part(&result.ok), part(&result.err))
        }
        other => panic!("the contract has no {}", other.as_str()),
    }
}

fn text(docs: &Docs) -> String {
    docs.contents.clone().unwrap_or_default().trim().to_owned()
}

/// For a cell of a table.
fn one_line(docs: &Docs) -> String {
    text(docs).replace('\n', " ").replace('|', "\\|")
}

fn signature(resolve: &Resolve, function: &Function) -> String {
    let parameters: Vec<String> = function
        .params
        .iter()
        .map(|p| format!("{}: {}", p.name, name(resolve, &p.ty)))
        .collect();
    let result = function
        .result
        .as_ref()
        .map_or(String::new(), |ty| format!(" -> {}", name(resolve, ty)));
    format!("{}({}){result}", function.name, parameters.join(", "))
}

fn type_section(out: &mut String, resolve: &Resolve, title: &str, def: &TypeDef) {
    // What another interface defines is explained there.
    if matches!(def.kind, TypeDefKind::Type(_)) {
        return;
    }
    let _ = writeln!(
        out,
        "### {} `{title}`\n\n{}\n",
        def.kind.as_str(),
        text(&def.docs)
    );
    let rows: Vec<(String, String, String)> = match &def.kind {
        TypeDefKind::Record(record) => record
            .fields
            .iter()
            .map(|f| (f.name.clone(), name(resolve, &f.ty), one_line(&f.docs)))
            .collect(),
        TypeDefKind::Enum(all) => all
            .cases
            .iter()
            .map(|c| (c.name.clone(), String::new(), one_line(&c.docs)))
            .collect(),
        TypeDefKind::Variant(all) => all
            .cases
            .iter()
            .map(|c| {
                let ty = c.ty.as_ref().map_or(String::new(), |t| name(resolve, t));
                (c.name.clone(), ty, one_line(&c.docs))
            })
            .collect(),
        other => panic!("the contract has no {}", other.as_str()),
    };
    out.push_str("| | type | |\n|---|---|---|\n");
    for (name, ty, about) in rows {
        let ty = if ty.is_empty() { ty } else { format!("`{ty}`") };
        let _ = writeln!(out, "| `{name}` | {ty} | {about} |");
    }
    out.push('\n');
}

fn interface_section(out: &mut String, resolve: &Resolve, interface: &Interface) {
    let title = interface.name.as_deref().unwrap_or_default();
    let package = &resolve.packages[interface.package.expect("of a package")].name;
    let version = package.version.as_ref().expect("a version");
    let full = format!("{}:{}/{title}@{version}", package.namespace, package.name);
    let _ = writeln!(out, "## {title}\n\n`{full}`\n\n{}\n", text(&interface.docs));
    for function in interface.functions.values() {
        let _ = writeln!(
            out,
            "### `{}`\n\n{}\n",
            signature(resolve, function),
            text(&function.docs)
        );
    }
    for (title, id) in &interface.types {
        type_section(out, resolve, title, &resolve.types[*id]);
    }
}

fn reference() -> String {
    let mut resolve = Resolve::default();
    let path = root().join("wit/strategy.wit");
    let (package, _) = resolve.push_path(&path).expect("the contract is WIT");
    let mut out = INTRODUCTION.to_owned();
    let _ = writeln!(out, "{}\n", text(&resolve.packages[package].docs));
    // What a strategy exports comes first, then what it may call, then what both
    // are made of.
    let order = ["strategy-api", "traffic", "metrics", "control", "types"];
    assert_eq!(resolve.interfaces.len(), order.len(), "a new interface");
    for wanted in order {
        let found = resolve
            .interfaces
            .iter()
            .find(|(_, i)| i.name.as_deref() == Some(wanted));
        interface_section(&mut out, &resolve, found.expect("known").1);
    }
    format!("{}\n", out.trim_end())
}

#[test]
fn the_reference_says_what_the_contract_says() {
    let place = root().join("engine/docs/reference/contract.md");
    let now = reference();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&place, &now).expect("writable");
    }
    let written = std::fs::read_to_string(&place).unwrap_or_default();
    assert!(
        written == now,
        "engine/docs/reference/contract.md is not up to date; UPDATE_REFERENCE=1 writes it anew"
    );
    // Everything is explained.
    let bare = now.lines().zip(now.lines().skip(2)).find(|(title, next)| {
        title.starts_with("### ") && (next.starts_with("| |") || next.starts_with('#'))
    });
    assert_eq!(bare, None);
}

/// What a policy can deny, and what a refusal names.
#[test]
fn the_engine_knows_the_functions_of_the_contract() {
    let mut resolve = Resolve::default();
    let path = root().join("wit/strategy.wit");
    resolve.push_path(&path).expect("the contract is WIT");
    let functions = |name: &str| {
        let mut all = resolve.interfaces.iter().map(|(_, i)| i);
        let found = all.find(|i| i.name.as_deref() == Some(name));
        let names = found.expect("an interface").functions.keys();
        names.map(String::as_str).collect::<Vec<_>>()
    };
    for (package, known) in engine::spec::policy::CONTRACT {
        assert_eq!(functions(package), *known, "{package}");
    }
    let with_functions = resolve
        .interfaces
        .iter()
        .filter(|(_, i)| !i.functions.is_empty() && i.name.as_deref() != Some("strategy-api"));
    assert_eq!(with_functions.count(), engine::spec::policy::CONTRACT.len());
}
