//! JSON Schemas (draft 2020-12) that are made from types, as people and editors like
//! them: strict, and without what only Rust knows.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

/// The JSON Schema of a file that people write. Nothing in it can be null: what is
/// not to be said is left out.
#[must_use]
pub fn of_file<T: JsonSchema>() -> Value {
    let generator = SchemaGenerator::new(SchemaSettings::draft2020_12().for_deserialize());
    let mut schema = Value::from(generator.into_root_schema_for::<T>());
    without_null(&mut schema);
    tidy(&mut schema);
    schema
}

/// Takes away what nobody needs to know, and refuses the keys of objects that are not
/// described.
pub fn tidy(schema: &mut Value) {
    let shared = schema["$defs"].clone();
    merge(schema, &shared);
    plain(schema);
    close(schema, false);
}

/// Brings the keys of an object together that are described in a shared schema and
/// beside it: a shared schema refuses every key that it does not describe itself.
fn merge(schema: &mut Value, shared: &Value) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("properties") {
                let shapes = object.get_mut("anyOf").and_then(Value::as_array_mut);
                for shape in shapes.into_iter().flatten() {
                    if let Some(described) = referred(shape, shared) {
                        *shape = described;
                    }
                }
                if let Some(described) = object.get("$ref").and_then(|name| named(name, shared)) {
                    object.remove("$ref");
                    for key in ["properties", "required"] {
                        match (object.get_mut(key), described[key].clone()) {
                            (Some(Value::Object(own)), Value::Object(more)) => own.extend(more),
                            (Some(Value::Array(own)), Value::Array(more)) => own.extend(more),
                            _ => {}
                        }
                    }
                }
            }
            object.values_mut().for_each(|inner| merge(inner, shared));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| merge(item, shared)),
        _ => {}
    }
}

/// The shared schema that this one refers to.
pub(crate) fn referred(schema: &Value, shared: &Value) -> Option<Value> {
    named(schema.get("$ref")?, shared)
}

fn named(reference: &Value, shared: &Value) -> Option<Value> {
    let name = reference.as_str()?.strip_prefix("#/$defs/")?;
    shared.get(name).cloned()
}

/// What an optional key may be if it is there.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [one] = &types[..] {
                    let one = one.clone();
                    object.insert("type".to_owned(), one);
                }
            }
            if let Some(Value::Array(shapes)) = object.get_mut("anyOf") {
                shapes.retain(|shape| shape["type"] != "null");
                if let [Value::Object(only)] = &shapes[..] {
                    let only = only.clone();
                    object.remove("anyOf");
                    for (key, value) in only {
                        // The field's own words say more than those of its type.
                        object.entry(key).or_insert(value);
                    }
                }
            }
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            object.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// Widths of Rust's numbers say nothing about JSON, and a list of words needs no
/// schema for each word.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let number = matches!(
                object.get("type").map(|kind| kind.to_string()).as_deref(),
                Some(
                    "\"integer\""
                        | "\"number\""
                        | "[\"integer\",\"null\"]"
                        | "[\"number\",\"null\"]"
                )
            );
            if number {
                object.remove("format");
            }
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = in_one_line(text);
            }
            words(object);
            object.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

/// Each paragraph of a text in one line: where lines end in the source says nothing.
fn in_one_line(text: &str) -> String {
    let paragraphs = text
        .split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// `oneOf` with a word in each, as one `enum` whose description says what the words
/// mean.
fn words(object: &mut Map<String, Value>) {
    let Some(Value::Array(shapes)) = object.get("oneOf") else {
        return;
    };
    let mut meanings = vec![];
    let mut all = vec![];
    for shape in shapes {
        let described = shape["description"].as_str().map(in_one_line);
        let words = match (&shape["const"], &shape["enum"]) {
            (Value::String(word), _) => vec![Value::from(word.as_str())],
            (_, Value::Array(words)) => words.clone(),
            _ => return,
        };
        if let (Some(described), [Value::String(word)]) = (described, &words[..]) {
            meanings.push(format!("`{word}`: {described}"));
        }
        all.extend(words);
    }
    object.remove("oneOf");
    object.insert("type".to_owned(), "string".into());
    object.insert("enum".to_owned(), all.into());
    let about = object.get("description").and_then(Value::as_str);
    let about: Vec<&str> = about
        .into_iter()
        .chain(meanings.iter().map(String::as_str))
        .collect();
    if !about.is_empty() {
        let about = about.join("\n");
        object.insert("description".to_owned(), about.into());
    }
}

/// Has objects refuse the keys that they do not describe. Where the keys of an object
/// are described in several places, the place around them knows them all.
fn close(schema: &mut Value, part: bool) {
    let object = match schema {
        Value::Object(object) => object,
        Value::Array(items) => {
            items.iter_mut().for_each(|item| close(item, part));
            return;
        }
        _ => return,
    };
    let described = object.get("properties").is_some_and(Value::is_object);
    let apart = ["anyOf", "oneOf", "allOf"].iter().any(|key| {
        let shapes = object.get(*key).and_then(Value::as_array);
        let mut shapes = shapes.into_iter().flatten();
        shapes.any(|shape| shape.get("properties").is_some() || shape.get("$ref").is_some())
    });
    if described && !part {
        let key = if apart {
            "unevaluatedProperties"
        } else {
            "additionalProperties"
        };
        object.entry(key).or_insert(Value::Bool(false));
    }
    for (key, inner) in object.iter_mut() {
        match key.as_str() {
            "anyOf" | "oneOf" | "allOf" => close(inner, part || (described && apart)),
            "properties" | "$defs" => {
                let all = inner.as_object_mut().into_iter().flatten();
                all.for_each(|(_, inner)| close(inner, false));
            }
            "items" | "additionalProperties" | "prefixItems" => close(inner, false),
            _ => {}
        }
    }
}
