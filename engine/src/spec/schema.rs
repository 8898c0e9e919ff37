//! The keys of the files that people write, as types from which JSON Schemas for
//! editors are made.
//!
//! The readers of these files collect all problems with their paths, accept several
//! spellings and check what no schema can say, so they are written by hand and decide
//! what is valid. The types here only describe. A test compares the two: each key that
//! a reader asks for is described here, and the reverse.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

/// A duration such as `90s`, `10m` or `2h`.
#[derive(Debug, Clone, Copy)]
pub struct Span;

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]", "examples": ["90s", "10m", "2h"]})
    }
}

/// The rollout file: what is rolled out where, by which strategy, within which limits.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct RolloutFile {
    /// What is rolled out where; a local balancer that runs already, if absent.
    pub target: Option<Target>,
    /// Which strategy, and its parameters.
    pub strategy: Option<Strategy>,
    /// A release to put into the candidate arm first.
    pub candidate: Option<Release>,
    /// Limits that the engine enforces whatever the strategy asks.
    pub guardrails: Option<Guardrails>,
    /// How the new version takes over at the end. The default suits the target.
    pub promotion: Option<Promotion>,
    /// HTTP requests to the candidate, by name, which a strategy may ask for.
    pub probes: Option<BTreeMap<String, Probe>>,
    /// Metrics of your own, by name, which a strategy may ask for.
    pub queries: Option<BTreeMap<String, Query>>,
    /// What the strategy is allowed.
    pub policy: Option<PolicyTable>,
}

/// What is rolled out where.
#[derive(Debug, JsonSchema)]
#[schemars(tag = "kind", rename_all = "kebab-case")]
pub enum Target {
    /// A load balancer on this machine.
    Local {
        /// The balancer: one that runs already, or with arms one that runs inside the
        /// engine.
        local: Option<Box<Local>>,
    },
    /// An Application Load Balancer before two ECS services.
    Aws {
        /// How the engine finds the target.
        aws: Box<Aws>,
    },
}

/// A local balancer.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct Local {
    /// Where the admin API listens; a loopback address.
    #[schemars(extend("default" = "127.0.0.1:7900"))]
    pub admin: Option<String>,
    /// Where users send requests.
    #[schemars(extend("default" = "127.0.0.1:8080"))]
    pub listen: Option<String>,
    /// The two arms, by name, such as stable and canary.
    pub arms: Option<BTreeMap<String, Arm>>,
    /// Seconds that a client stays on its arm; 0 turns the cookie off.
    #[schemars(range(max = 604_800), extend("default" = 0))]
    pub sticky_seconds: Option<u32>,
    /// How long a replaced release may finish its requests.
    #[schemars(extend("default" = "10s"))]
    pub drain: Option<Span>,
    /// How long a server may take until the headers of its answer, and be silent within
    /// it.
    #[schemars(extend("default" = "60s"))]
    pub response_timeout: Option<Span>,
    /// Whether the balancer speaks HTTP/2 to the arms, as gRPC needs it.
    #[schemars(extend("default" = false))]
    pub upstream_http2: Option<bool>,
    /// Absolute path of a file (PEM) with the authority that signs the certificates of
    /// `https://` servers; without it none is verified, as on AWS.
    #[schemars(extend("pattern" = "^/"))]
    pub upstream_ca: Option<String>,
    /// Requests per second that the built-in client sends.
    #[schemars(range(max = 100_000), extend("default" = 0))]
    pub load_rps: Option<u32>,
    /// Active health checks of the servers.
    pub health: Option<Health>,
    /// Limits for the clients of the balancer.
    pub clients: Option<Clients>,
}

/// Active health checks.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct Health {
    /// What the check speaks: a GET request, or the gRPC health protocol.
    #[schemars(extend("enum" = ["http", "grpc"], "default" = "http"))]
    pub protocol: Option<String>,
    /// The gRPC service that is asked about; none means the whole server.
    pub service: Option<String>,
    /// Path of the request.
    #[schemars(extend("pattern" = "^/", "default" = "/healthz"))]
    pub path: Option<String>,
    /// Time between two checks.
    #[schemars(extend("default" = "500ms"))]
    pub interval: Option<Span>,
    /// How long one check may take.
    #[schemars(extend("default" = "2s"))]
    pub timeout: Option<Span>,
    /// Successes in a row that make a server healthy.
    #[schemars(range(min = 1, max = 10), extend("default" = 2))]
    pub healthy_after: Option<u32>,
    /// Failures in a row that make a server unhealthy.
    #[schemars(range(min = 1, max = 10), extend("default" = 3))]
    pub unhealthy_after: Option<u32>,
}

/// Limits for the clients of a local balancer.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct Clients {
    /// Most connections at the same time, and most requests at the same time.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 4096))]
    pub connections: Option<u32>,
    /// How long a connection may be silent.
    #[schemars(extend("default" = "60s"))]
    pub idle: Option<Span>,
    /// How long a client may take for the next part of its body.
    #[schemars(extend("default" = "30s"))]
    pub body: Option<Span>,
}

/// One arm of a local balancer: its release and its weight at first.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct Arm {
    /// Its weight at first, from 0 to 999. The default is 100 for `stable` and `blue`, and 0 for
    /// others.
    #[schemars(range(max = 999))]
    pub weight: Option<u32>,
    /// What it runs.
    #[schemars(flatten)]
    pub release: Release,
}

/// What to run: an image on AWS, or a version with exactly one of `urls`, `command`
/// and `demo`.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct Release {
    /// A container image, `REPOSITORY:TAG`; on AWS only.
    pub image: Option<String>,
    /// A label that people recognise; equal labels mean the same software.
    #[schemars(length(min = 1))]
    pub version: Option<String>,
    /// Servers that run already, such as `http://127.0.0.1:9001` or `https://[::1]:9001`,
    /// without a path.
    #[schemars(length(min = 1), inner(regex(pattern = "^https?://")))]
    pub urls: Option<Vec<String>>,
    /// A program that the balancer starts; `{port}` in an argument and the variable
    /// `PORT` carry the port that it must listen on.
    #[schemars(length(min = 1))]
    pub command: Option<Vec<String>>,
    /// The built-in demo service, with a fault if it shall have one.
    pub demo: Option<Demo>,
}

/// What is wrong with a demo service, if anything.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct Demo {
    /// Part of the requests that are answered with status 500, from 0 to 1.
    #[schemars(range(min = 0, max = 1), extend("default" = 0))]
    pub error_rate: Option<f64>,
    /// Latency that is added to every request.
    #[schemars(extend("default" = "0s"))]
    pub latency: Option<Span>,
}

/// A target on AWS. One of `stack`, `listener` and `rule` is needed; the engine finds
/// the rest.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[schemars(extend("anyOf" = [{"required": ["stack"]}, {"required": ["listener"]}, {"required": ["rule"]}]))]
pub struct Aws {
    /// Such as `eu-central-1`; from the environment if absent.
    pub region: Option<String>,
    /// Name of a profile in the shared configuration files.
    pub profile: Option<String>,
    /// ARN of a role to assume.
    pub role: Option<String>,
    /// Name of the CloudFormation stack that has the target.
    pub stack: Option<String>,
    /// ARN of the listener whose default action shares out the requests.
    #[schemars(extend("pattern" = ":listener/"))]
    pub listener: Option<String>,
    /// ARN of the listener rule whose action shares out the requests.
    #[schemars(extend("pattern" = ":listener-rule/"))]
    pub rule: Option<String>,
    /// Name or ARN of the ECS cluster.
    pub cluster: Option<String>,
    /// The two arms, by name, where the engine cannot tell them by the names of target
    /// groups or does not find their services.
    pub arms: Option<BTreeMap<String, AwsArm>>,
    /// ARNs of test listeners: only tests use them, and no users.
    #[schemars(length(min = 1), inner(regex(pattern = ":listener/")))]
    pub test_listeners: Option<Vec<String>>,
    /// Whether only the route that is named moves, and no other one to the same two groups
    /// [default: false].
    pub only: Option<bool>,
    /// Where a candidate without traffic can be reached, such as
    /// `https://test.example.org`.
    pub probe_url: Option<String>,
    /// Absolute path of a file (PEM) with the authority that signs what an `https://`
    /// probe meets; without it `probe-url` is verified as every other address is, and the
    /// certificates of tasks and test listeners are not, as load balancers verify none.
    #[schemars(extend("pattern" = "^/"))]
    pub probe_ca: Option<String>,
    /// The container whose image is the version, where a task has several.
    pub container: Option<String>,
    /// How long after its end a minute of metrics counts as complete.
    #[schemars(extend("default" = "120s"))]
    pub metrics_delay: Option<Span>,
}

/// One arm of a target on AWS.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct AwsArm {
    /// ARN or name of its target group.
    pub target_group: Option<String>,
    /// Name of its ECS service, or `CLUSTER/SERVICE`.
    pub service: Option<String>,
}

/// Which strategy, and its parameters.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct Strategy {
    /// Path of the component, or its name in `plugins.toml`.
    pub plugin: Option<String>,
    /// The SHA-256 that its bytes must have.
    #[schemars(extend("pattern" = "^(sha256:)?[0-9a-fA-F]{64}$"))]
    pub sha256: Option<String>,
    /// Parameters, as the plugin's own schema describes them; `engine plugin inspect`
    /// shows it.
    pub parameters: Option<Map<String, Value>>,
}

/// Limits that the engine enforces whatever the strategy asks.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct Guardrails {
    /// Most percentage points by which one write may raise the candidate's share.
    #[schemars(range(min = 1, max = 100), extend("default" = 100))]
    pub largest_step: Option<f64>,
    /// Largest share of the candidate before it has had traffic for a while.
    pub before_bake: Option<BeforeBake>,
    /// The rollout must have a verdict this long after it began.
    #[schemars(extend("default" = "24h"))]
    pub deadline: Option<Span>,
    /// What happens when the deadline has passed.
    #[schemars(extend("default" = "rollback"))]
    pub on_deadline: Option<OnTrouble>,
    /// What happens when the strategy traps, hangs or returns an error.
    #[schemars(extend("default" = "rollback"))]
    pub on_plugin_error: Option<OnTrouble>,
    /// How long to wait for a healthy server before a write is refused. The default
    /// is one minute, and 15 minutes on AWS.
    pub healthy_timeout: Option<Span>,
    /// How long the old version keeps its tasks once the new one has all traffic, and
    /// the alarms can still take it back.
    #[schemars(extend("default" = "0s"))]
    pub final_bake: Option<Span>,
    /// Names of CloudWatch alarms; one in the state ALARM takes the rollout back.
    #[schemars(length(min = 1, max = 10))]
    pub alarms: Option<Vec<String>>,
}

/// Largest share of the candidate before it has had traffic for a while.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct BeforeBake {
    /// That share, in percent.
    #[schemars(range(min = 0, max = 100))]
    pub share: f64,
    /// How long the candidate must have had traffic before it may get more.
    pub bake: Span,
}

/// What to do when a rollout cannot go on by itself.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum OnTrouble {
    /// All traffic goes back to the stable arm.
    Rollback,
    /// The traffic stays where it is until a person acts.
    Pause,
}

/// How the new version takes over at the end.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum Promotion {
    /// The candidate arm keeps the traffic and is the stable arm from now on.
    Swap,
    /// The stable arm gets the candidate's release, then the traffic back. On AWS it
    /// keeps its own task definition but for what the new version changed in the
    /// candidate's.
    Copy,
    /// As `copy`, but on AWS the stable service gets the candidate's task definition as
    /// it is, with its size, roles, variables and logs.
    CopyWhole,
}

/// One GET request to the candidate and what it must answer.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct Probe {
    /// Path of the request.
    #[schemars(extend("pattern" = "^/"))]
    pub path: String,
    /// The status that it must answer.
    #[schemars(range(min = 100, max = 599), extend("default" = 200))]
    pub status: Option<u32>,
    /// A text that the body must contain.
    pub contains: Option<String>,
    /// Tries, a second apart, before it counts as failed.
    #[schemars(range(min = 1, max = 100), extend("default" = 3))]
    pub attempts: Option<u32>,
    /// How long one try may take.
    #[schemars(extend("default" = "5s"))]
    pub timeout: Option<Span>,
}

/// A metric of your own, with a value for each arm. It has exactly one of `url`,
/// `prometheus` and `cloudwatch`. In its texts `{arm}`, `{version}` and, on AWS,
/// `{service}`, `{cluster}`, `{target-group}` and `{load-balancer}` are filled in.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[schemars(extend("oneOf" = [{"required": ["url"]}, {"required": ["prometheus"]}, {"required": ["cloudwatch"]}]))]
pub struct Query {
    /// Address of a JSON document; `{since}` is filled in too.
    #[schemars(extend("pattern" = "^https?://"))]
    pub url: Option<String>,
    /// JSON pointer to the number in that document.
    #[schemars(extend("pattern" = "^/"))]
    pub pointer: Option<String>,
    /// A range query of a Prometheus server, which must give one series.
    pub prometheus: Option<Prometheus>,
    /// A CloudWatch metric, or an expression over metrics.
    pub cloudwatch: Option<CloudWatch>,
    /// Headers of its requests; secrets in them are references such as `${NAME}` or
    /// `${file:/PATH}`.
    pub headers: Option<BTreeMap<String, String>>,
    /// The name and the password that its requests send, for `url` and `prometheus`.
    pub basic_auth: Option<BasicAuth>,
}

/// A name and a password.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct BasicAuth {
    /// The name.
    #[schemars(length(min = 1))]
    pub user: String,
    /// A reference to the password: `${NAME}` or `${file:/PATH}`.
    #[schemars(length(min = 1))]
    pub password: String,
}

/// A range query of a Prometheus server.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct Prometheus {
    /// Its address, such as `http://prometheus:9090`.
    #[schemars(extend("pattern" = "^https?://"))]
    pub server: String,
    /// The expression.
    #[schemars(length(min = 1))]
    pub query: String,
}

/// A CloudWatch metric: either `expression`, or `namespace` and `metric`.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[schemars(extend("anyOf" = [{"required": ["expression"]}, {"required": ["namespace", "metric"]}]))]
pub struct CloudWatch {
    /// An expression of metric math, or a `SEARCH`.
    pub expression: Option<String>,
    /// Such as `ML/Serving`.
    pub namespace: Option<String>,
    /// Name of the metric.
    pub metric: Option<String>,
    /// A statistic that CloudWatch knows, such as `Average`, `Sum`, `p99` or `TC(0.5:)`.
    #[schemars(extend("default" = "Average"))]
    pub statistic: Option<String>,
    /// The time that one value stands for, a multiple of one minute.
    #[schemars(extend("default" = "60s"))]
    pub period: Option<Span>,
    /// Name and value of each dimension.
    pub dimensions: Option<Map<String, Value>>,
}

/// What an operator allows a plugin. The same keys are in `[policy]` of a rollout file
/// and in the policy file of a host; of two the stricter rule counts.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct PolicyTable {
    /// Imports that no plugin may have, such as `traffic` or `traffic.set-weights`.
    #[schemars(length(min = 1))]
    pub deny_imports: Option<Vec<String>>,
    /// SHA-256 of the only plugins that may run.
    #[schemars(length(min = 1), inner(regex(pattern = "^(sha256:)?[0-9a-fA-F]{64}$")))]
    pub digests: Option<Vec<String>>,
    /// Files of public keys, one of which must have signed the plugin.
    #[schemars(length(min = 1))]
    pub signers: Option<Vec<String>>,
    /// Linear memory of a plugin, MiB.
    #[schemars(range(min = 1, max = 64))]
    pub memory_mib: Option<u32>,
    /// Million instructions that a plugin may use between two calls.
    #[schemars(range(min = 1, max = 1_000))]
    pub fuel_million: Option<u32>,
    /// Calls that a plugin may make in a whole rollout.
    #[schemars(range(min = 1, max = 50_000))]
    pub calls: Option<u32>,
    /// Size of a rollout's journal, MiB.
    #[schemars(range(min = 1, max = 64))]
    pub journal_mib: Option<u32>,
}

/// The plugins file: which plugins a team uses, where they come from, and whose
/// signature they need.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct PluginsFile {
    /// Where each plugin comes from, by its name.
    pub plugins: Option<BTreeMap<String, Plugin>>,
    /// Whose signature a source needs, by the beginning of the source.
    pub signatures: Option<BTreeMap<String, SignatureRule>>,
    /// Files of certificates that are trusted besides the machine's own.
    #[schemars(length(min = 1))]
    pub ca_files: Option<Vec<String>>,
}

/// `oci://REGISTRY/REPOSITORY:TAG` or a path; or a table, where more is to be said.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Plugin {
    /// Its source.
    Source(String),
    /// Its source and who must have signed it.
    Table(PluginTable),
}

/// Where a plugin comes from, and who must have signed it.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct PluginTable {
    /// `oci://REGISTRY/REPOSITORY:TAG`, or a path.
    #[schemars(length(min = 1))]
    pub source: String,
    /// Files of public keys, one of which must have signed it.
    #[schemars(length(min = 1))]
    pub signed_by: Option<Vec<String>>,
}

/// What comes from a source must be signed by one of these.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub struct SignatureRule {
    /// Files of public keys; an empty list asks for no signature.
    pub keys: Vec<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::problem::Problems;
    use crate::model::{WEIGHT_MAX, limits};
    use crate::schema::{of_file, referred};
    use crate::spec::Spec;
    use crate::spec::plugins::Plugins;
    use crate::spec::policy::Policy;
    use crate::spec::read::asked_in;

    /// Files that make a reader ask for every key that it knows.
    const ROLLOUTS: [&str; 4] = [
        "[target]
        kind = 'local'
        [target.local.arms.NAME]
        demo = {}
        [candidate]
        version = 'v2'
        [strategy]
        [guardrails]
        before-bake = {}
        [probes.NAME]
        [queries.NAME]
        basic-auth = { user = 'u', password = '${P}' }
        url = ''
        headers = { NAME = '' }
        [policy]",
        "[target]
        kind = 'aws'
        [target.aws.arms.NAME]
        [candidate]
        image = 'app:v2'
        [queries.NAME]
        prometheus = {}",
        "[candidate]
        demo = {}
        [queries.NAME]
        cloudwatch = {}",
        "[target]
        kind = 'local'
        [target.local.arms.NAME]
        image = 'app:v1'",
    ];
    const PLUGINS: &str = "[plugins.NAME]
        [signatures.NAME]";

    /// The paths of all keys that a schema describes; a name of the file's own is NAME.
    fn described(schema: &Value) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        walk(schema, &schema["$defs"], "", &mut found);
        found
    }

    fn walk(node: &Value, shared: &Value, path: &str, found: &mut BTreeSet<String>) {
        let at = |key: &str| match path {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        if let Some(shared_one) = referred(node, shared) {
            walk(&shared_one, shared, path, found);
        }
        for (key, inner) in node["properties"].as_object().into_iter().flatten() {
            found.insert(at(key));
            walk(inner, shared, &at(key), found);
        }
        for shapes in ["anyOf", "oneOf"] {
            for shape in node[shapes].as_array().into_iter().flatten() {
                walk(shape, shared, path, found);
            }
        }
        let named = &node["additionalProperties"];
        if named.is_object() {
            found.insert(at("NAME"));
            walk(named, shared, &at("NAME"), found);
        }
    }

    fn asked<T>(read: impl Fn(&str) -> Result<T, Problems>, texts: &[&str]) -> BTreeSet<String> {
        let all = texts.iter().flat_map(|text| asked_in(|| drop(read(text))));
        all.collect()
    }

    #[test]
    fn readers_and_schemas_know_the_same_keys() {
        for (known, schema) in [
            (asked(Spec::parse, &ROLLOUTS), of_file::<RolloutFile>()),
            (asked(Plugins::parse, &[PLUGINS]), of_file::<PluginsFile>()),
            (asked(Policy::parse, &[""]), of_file::<PolicyTable>()),
        ] {
            let described = described(&schema);
            let missing: Vec<_> = known.difference(&described).collect();
            assert!(missing.is_empty(), "not in the schema: {missing:?}");
            let unread: Vec<_> = described.difference(&known).collect();
            assert!(unread.is_empty(), "nobody reads {unread:?}");
        }
    }

    #[test]
    fn numbers_of_the_schemas_are_those_of_the_readers() {
        let schema = of_file::<RolloutFile>();
        for (pointer, most) in [
            ("/Arm/properties/weight/maximum", WEIGHT_MAX),
            ("/PolicyTable/properties/calls/maximum", limits::CALLS_MAX),
            (
                "/PolicyTable/properties/journal-mib/maximum",
                limits::JOURNAL_MIB_MAX,
            ),
            (
                "/PolicyTable/properties/memory-mib/maximum",
                limits::MEMORY_MIB_MAX,
            ),
        ] {
            let said = schema["$defs"].pointer(pointer).and_then(Value::as_u64);
            assert_eq!(said, Some(u64::from(most)), "{pointer}");
        }
        let alarms = &schema["$defs"]["Guardrails"]["properties"]["alarms"]["maxItems"];
        assert_eq!(alarms, limits::ALARMS_MAX);
    }
}
