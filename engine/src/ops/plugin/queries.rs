//! The queries that parameters name, checked before a rollout begins: a strategy would
//! notice only once users have met the candidate.

use serde_json::Value;

use crate::model::problem::Problem;
use crate::model::query::{Count, Query, QuerySource};
use crate::strategy::Description;

/// The keyword by which a schema says that a text names a query of the rollout file.
const KEYWORD: &str = "x-query";
/// Its value where the query must have one value for each sample.
const SERIES: &str = "series";
/// Most nodes of a schema that are looked at. A schema is the plugin's, and a short one
/// can refer to itself over and over.
const NODES_MAX: usize = 20_000;
/// Most levels of a schema that are followed.
const DEPTH_MAX: usize = 32;

/// Checks that the rollout file has each query which the parameters name, and that it
/// has a value for each sample where the strategy needs that.
///
/// Returns a problem for each key: its query, and what to write instead.
pub fn check(description: &Description, parameters: &Value, queries: &[Query]) -> Vec<Problem> {
    // What cannot be read as a schema was refused before.
    let schema = serde_json::from_str(&description.parameters_schema).unwrap_or_default();
    let mut search = Search {
        schema: &schema,
        left: NODES_MAX,
        found: vec![],
    };
    search.look(&schema, parameters, super::parameters::KEY, 0);
    search.found.sort();
    search.found.dedup();
    let wrong = |(key, name): &(String, String)| Some(Problem::new(key, problem(name, queries)?));
    search.found.iter().filter_map(wrong).collect()
}

fn problem(name: &str, queries: &[Query]) -> Option<String> {
    if Count::of_query(name).is_some() {
        return None;
    }
    let Some(query) = queries.iter().find(|query| query.name == name) else {
        let known: Vec<&str> = queries.iter().map(|query| query.name.as_str()).collect();
        let known = match known.is_empty() {
            true => "it has no queries".to_owned(),
            false => format!("it has {}", known.join(", ")),
        };
        return Some(format!(
            "names the query {name:?}, which the rollout file does not have; {known}"
        ));
    };
    matches!(query.source, QuerySource::Json { .. }).then(|| {
        format!(
            "names the query {name:?}, which asks a `url`: that has one value, of the moment when it is asked, and a value for each sample is needed; let [queries.{name}] ask `prometheus` or `cloudwatch`"
        )
    })
}

/// A walk through a schema and a value at the same time.
struct Search<'a> {
    schema: &'a Value,
    left: usize,
    /// Keys and the queries that they name.
    found: Vec<(String, String)>,
}

impl Search<'_> {
    fn look(&mut self, node: &Value, value: &Value, key: &str, depth: usize) {
        if self.left == 0 || depth > DEPTH_MAX {
            return;
        }
        self.left -= 1;
        if let (Some(SERIES), Some(name)) = (node[KEYWORD].as_str(), value.as_str()) {
            self.found.push((key.to_owned(), name.to_owned()));
        }
        let schema = self.schema;
        if let Some(named) = node["$ref"].as_str().and_then(|r| r.strip_prefix('#'))
            && let Some(node) = schema.pointer(named)
        {
            self.look(node, value, key, depth + 1);
        }
        for shapes in ["allOf", "anyOf", "oneOf"] {
            for node in node[shapes].as_array().into_iter().flatten() {
                self.look(node, value, key, depth + 1);
            }
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            let known = node["properties"].get(name);
            if let Some(node) = known.or_else(|| node.get("additionalProperties")) {
                self.look(node, value, &format!("{key}.{name}"), depth + 1);
            }
        }
        for (index, value) in value.as_array().into_iter().flatten().enumerate() {
            if let Some(node) = node.get("items") {
                self.look(node, value, &format!("{key}.{index}"), depth + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::problem::Located;
    use crate::ops::plugin::not_accepted;
    use serde_json::json;

    fn described(schema: &Value) -> Description {
        Description {
            name: "test".to_owned(),
            version: "1.0.0".to_owned(),
            summary: String::new(),
            parameters_schema: schema.to_string(),
        }
    }

    fn query(name: &str, source: QuerySource) -> Query {
        Query::new(name, source)
    }

    #[test]
    fn a_query_without_a_value_per_sample_is_refused_by_key_and_name() {
        let queries = [
            query(
                "now",
                QuerySource::Json {
                    url: "http://127.0.0.1:1/".to_owned(),
                    pointer: "/v".to_owned(),
                },
            ),
            query(
                "series",
                QuerySource::Prometheus {
                    server: "http://127.0.0.1:1".to_owned(),
                    query: "up".to_owned(),
                },
            ),
        ];
        let named = json!({"type": ["string", "null"], "x-query": "series"});
        let schema = json!({
            "properties": {
                "one": named,
                "any": {"anyOf": [{"type": "null"}, named]},
                "by-name": {"additionalProperties": named},
                "streams": {"type": "array", "items": {"$ref": "#/$defs/Stream"}},
                "free": {"type": "string"},
            },
            "$defs": {"Stream": {"properties": {"bad": named, "name": {"type": "string"}}}},
        });
        let refused = |parameters: Value| {
            let description = described(&schema);
            let problems = check(&description, &parameters, &queries);
            let all: Vec<Located> = problems.into_iter().map(Located::from).collect();
            (!all.is_empty()).then(|| not_accepted(&description, all).message)
        };
        assert_eq!(refused(json!({"one": "series", "any": null})), None);
        // A strategy may ask a `url` query where it does not say that it needs a series.
        assert_eq!(refused(json!({"free": "now"})), None);
        // These need no entry in the file.
        assert_eq!(refused(json!({"one": "engine:client-errors"})), None);
        for (parameters, key) in [
            (json!({"one": "now"}), "strategy.parameters.one"),
            (json!({"any": "now"}), "strategy.parameters.any"),
            (
                json!({"by-name": {"a": "now"}}),
                "strategy.parameters.by-name.a",
            ),
            (
                json!({"streams": [{"bad": "series"}, {"name": "now", "bad": "now"}]}),
                "strategy.parameters.streams.1.bad",
            ),
        ] {
            let said = refused(parameters).expect("a url has no series");
            let line = format!("  {key}: names the query \"now\", which asks a `url`");
            assert!(said.contains(&line), "{said}");
            assert_eq!(said.lines().count(), 2, "once: {said}");
        }
        let said = refused(json!({"one": "nwo"})).expect("there is none");
        assert!(
            said.contains("\"nwo\", which the rollout file does not have; it has now, series"),
            "{said}"
        );
    }

    #[test]
    fn a_schema_that_refers_to_itself_comes_to_an_end() {
        let schema = json!({"$ref": "#", "allOf": [{"$ref": "#"}, {"$ref": "#"}]});
        let problems = check(&described(&schema), &json!({"a": 1}), &[]);
        assert_eq!(problems, [], "nothing is named");
    }
}
