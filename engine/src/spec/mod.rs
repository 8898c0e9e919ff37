//! The rollout file, validated.
//!
//! `rollout.toml` is read strictly: an unknown key is an error, and all
//! problems are reported at once with their paths. Later code sees only the
//! types here, never the raw file. Pure: `ops` reads the file.

pub mod aws;
pub mod credentials;
pub mod draft;
pub mod imports;
pub mod plugins;
pub mod policy;
mod read;
pub mod schema;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::model::address;
use crate::model::aws::AwsSpec;
use crate::model::image::ImageReference;
use crate::model::limits::{ALARMS_MAX, BeforeBake, Guardrails, OnTrouble};
use crate::model::problem::Problems;
pub use crate::model::problem::nearest;
use crate::model::query::{BasicAuth, Probe, Query, QuerySource};
use crate::model::secret;
use crate::model::target::{
    ADMIN_DEFAULT, Clients, HealthCheck, HealthProtocol, LISTEN_DEFAULT, LocalArm, LocalSpec,
    RESPONSE_TIMEOUT_MS, TargetSpec,
};
use crate::model::{DemoFault, Millis, Promotion, Release, Source, is_name};
use policy::Policy;
pub use read::located;
use read::{Reader, Section};

/// Everything that a rollout file can say.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// What is rolled out where.
    pub target: TargetSpec,
    /// Which strategy, and its parameters.
    pub strategy: StrategySpec,
    /// A release to put into the candidate arm first.
    pub candidate: Option<Release>,
    /// Limits that the host enforces.
    pub guardrails: Guardrails,
    /// How the new version takes over; if `None`, in the way that suits the target.
    pub promotion: Option<Promotion>,
    /// Probes, by name.
    pub probes: Vec<Probe>,
    /// Custom queries, by name.
    pub queries: Vec<Query>,
    /// What the strategy is allowed.
    pub policy: Policy,
}

/// Which strategy to run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StrategySpec {
    /// Path of the component, or its name in `plugins.toml`.
    pub plugin: Option<String>,
    /// The digest that its bytes must have.
    pub sha256: Option<String>,
    /// Parameters, as the plugin's own schema describes them.
    pub parameters: serde_json::Map<String, serde_json::Value>,
}

/// The message about a text that contains a credential; the text itself is not shown.
const CREDENTIAL: &str = "has a credential in it, which would go into journals and exports; name it instead: ${NAME} for a variable of the environment or ${file:/PATH} in a query's url, server, headers and basic-auth and in a probe's path; a program that an arm runs inherits the environment of engine";

/// The message about an address with a user in it.
const USER: &str = "names a user, which is not sent; write basic-auth = { user = \"NAME\", password = \"${NAME}\" } in [queries.NAME], with the password in that variable";

impl Spec {
    /// Reads a rollout file.
    ///
    /// # Errors
    /// All its problems with their paths, lines and columns.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        match Self::read(text)? {
            (spec, problems) if problems.0.is_empty() => Ok(spec),
            (_, problems) => Err(problems),
        }
    }

    /// As [`Self::parse`], and what could be read of a file with problems. Nothing but a look
    /// for more problems may come of that.
    ///
    /// # Errors
    /// The file is not TOML.
    pub fn read(text: &str) -> Result<(Self, Problems), Problems> {
        let reader = Reader::new(text);
        let table = reader.table()?;
        let credentials = credentials::in_table(&table);
        let mut root = reader.section(table);
        for path in credentials {
            root.problem(&path, CREDENTIAL);
        }
        let target = target(root.section("target"));
        let on_aws = matches!(target, TargetSpec::Aws(_));
        let defaults = if on_aws {
            Guardrails::on_aws()
        } else {
            Guardrails::default()
        };
        let spec = Self {
            target,
            strategy: strategy(root.section("strategy")),
            candidate: root
                .has("candidate")
                .then(|| release(&mut root.section("candidate"), true)),
            guardrails: guardrails(root.section("guardrails"), defaults),
            promotion: root.choice(
                "promotion",
                &[
                    ("swap", Promotion::Swap),
                    ("copy", Promotion::Copy),
                    ("copy-whole", Promotion::CopyWhole),
                ],
            ),
            probes: root.named("probes").into_iter().map(probe).collect(),
            queries: root.named("queries").into_iter().map(query).collect(),
            policy: policy::read(root.section("policy")),
        };
        if !on_aws && !spec.guardrails.alarms.is_empty() {
            root.problem(
                "guardrails.alarms",
                "needs target.kind = \"aws\": CloudWatch has them",
            );
        }
        if let Some(Release { source, .. }) = &spec.candidate
            && matches!(source, Source::Image(_)) != on_aws
        {
            let fits = if on_aws {
                "on AWS it is `image = \"REPOSITORY:TAG\"`"
            } else {
                "an image needs target.kind = \"aws\""
            };
            root.problem("candidate", fits);
        }
        for (path, text) in spec.references() {
            if let Err(why) = secret::parts(text) {
                root.problem(&path, &why);
            }
        }
        root.finish();
        Ok(reader.into_parts(spec))
    }

    /// The texts with references to secrets, with their paths.
    pub fn references(&self) -> impl Iterator<Item = (String, &str)> {
        let queries = self.queries.iter().flat_map(|query| {
            let own = match &query.source {
                QuerySource::Json { url, .. } => Some(("url", url)),
                QuerySource::Prometheus { server, .. } => Some(("prometheus.server", server)),
                QuerySource::CloudWatch(_) => None,
            };
            let own = own.map(|(key, text)| (format!("queries.{}.{key}", query.name), text));
            let headers = query.headers.iter().map(|(header, text)| {
                let path = format!("queries.{}.headers.{header}", query.name);
                (path, text)
            });
            let login = query.basic_auth.as_ref().map(|login| {
                let path = |key: &str| format!("queries.{}.basic-auth.{key}", query.name);
                [
                    (path("user"), &login.user),
                    (path("password"), &login.password),
                ]
            });
            let login = login.into_iter().flatten();
            own.into_iter().chain(headers).chain(login)
        });
        let probes = self.probes.iter().map(|probe| {
            let path = format!("probes.{}.path", probe.name);
            (path, &probe.path)
        });
        let all = queries.chain(probes);
        all.map(|(path, text)| (path, text.as_str()))
    }

    /// The same as an empty file: a local balancer that runs already.
    #[must_use]
    pub fn bare() -> Self {
        Self {
            target: TargetSpec::Local {
                admin: ADMIN_DEFAULT,
            },
            strategy: StrategySpec::default(),
            candidate: None,
            guardrails: Guardrails::default(),
            promotion: None,
            probes: vec![],
            queries: vec![],
            policy: Policy::default(),
        }
    }

    /// A target on AWS that flags name, without a rollout file.
    #[must_use]
    pub fn on_aws(target: AwsSpec) -> Self {
        Self {
            target: TargetSpec::Aws(Box::new(target)),
            guardrails: Guardrails::on_aws(),
            ..Self::bare()
        }
    }

    /// Two demo versions behind an embedded balancer, with a load of its own:
    /// what `engine run` does without a rollout file.
    #[must_use]
    pub fn demo(
        fault: DemoFault,
        load_rps: u32,
        names: Option<[String; 2]>,
        state: Option<String>,
    ) -> Self {
        let local = LocalSpec::demo(fault);
        let local = match names {
            Some(names) => local.with_names(names),
            None => local,
        };
        let free = SocketAddr::new(LISTEN_DEFAULT.ip(), 0);
        Self {
            target: TargetSpec::Embedded {
                local: Box::new(LocalSpec {
                    listen: free,
                    admin: free,
                    ..local
                }),
                state,
                load_rps,
            },
            strategy: StrategySpec::default(),
            candidate: None,
            guardrails: Guardrails::default(),
            promotion: None,
            probes: vec![Probe {
                name: "healthz".to_owned(),
                path: "/healthz".to_owned(),
                status: 200,
                contains: None,
                attempts: 3,
                timeout_ms: 2_000,
            }],
            queries: vec![],
            policy: Policy::default(),
        }
    }
}

fn target(mut section: Section<'_>) -> TargetSpec {
    let kind = section.choice("kind", &[("local", false), ("aws", true)]);
    if kind.is_none() && !section.is_missing() && !section.has("kind") {
        section.problem(
            "kind",
            "is missing; write kind = \"aws\" or kind = \"local\"",
        );
    }
    if kind == Some(true) {
        let spec = aws::read(section.section("aws"));
        section.finish();
        return TargetSpec::Aws(Box::new(spec));
    }
    let mut local = section.section("local");
    let admin = local.address("admin").unwrap_or(ADMIN_DEFAULT);
    if !admin.ip().is_loopback() {
        local.problem(
            "admin",
            "must be a loopback address, such as 127.0.0.1:7900",
        );
    }
    let arms: Vec<LocalArm> = local.named("arms").into_iter().map(arm).collect();
    let listen = local.address("listen");
    let sticky_seconds = local.integer("sticky-seconds", 0, 604_800);
    let drain = local.duration("drain");
    let response_timeout = local.duration("response-timeout");
    let upstream_http2 = local.boolean("upstream-http2");
    let upstream_ca = local.file("upstream-ca");
    let load_rps = local.integer("load-rps", 0, 100_000);
    let health = health(local.section("health"));
    if health.protocol != HealthProtocol::Http && upstream_http2 != Some(true) {
        local.problem(
            "health.protocol",
            "gRPC needs HTTP/2; write upstream-http2 = true in [target.local]",
        );
    }
    let limited = local.has("clients");
    let clients = clients(local.section("clients"));
    let spec = if arms.is_empty() {
        for (key, set) in [
            ("listen", listen.is_some()),
            ("sticky-seconds", sticky_seconds.is_some()),
            ("drain", drain.is_some()),
            ("response-timeout", response_timeout.is_some()),
            ("upstream-http2", upstream_http2.is_some()),
            ("upstream-ca", upstream_ca.is_some()),
            ("load-rps", load_rps.is_some()),
            ("clients", limited),
        ] {
            if set {
                local.problem(
                    key,
                    "belongs to a balancer of its own: name its arms in [target.local.arms.NAME], or leave this out to use the one at `admin`",
                );
            }
        }
        TargetSpec::Local { admin }
    } else {
        if arms.len() != 2 {
            local.problem("arms", "a target has two arms, such as stable and canary");
        } else if arms.iter().all(|a| a.weight == 0) {
            local.problem(
                "arms",
                "all weights are 0; give the arm that serves today 100",
            );
        }
        TargetSpec::Embedded {
            local: Box::new(LocalSpec {
                listen: listen.unwrap_or(LISTEN_DEFAULT),
                admin,
                arms: stable_first(arms),
                sticky_seconds: sticky_seconds.unwrap_or(0),
                drain_ms: drain.map_or(10_000, |ms| u32::try_from(ms).unwrap_or(u32::MAX)),
                response_timeout_ms: response_timeout.map_or(RESPONSE_TIMEOUT_MS, |ms| {
                    u32::try_from(ms).unwrap_or(u32::MAX)
                }),
                health,
                upstream_http2: upstream_http2.unwrap_or(false),
                upstream_ca,
                clients,
            }),
            state: None,
            load_rps: load_rps.unwrap_or(0),
        }
    };
    local.finish();
    section.finish();
    spec
}

/// A TOML table has no order; people expect the arm that serves today first.
fn stable_first(mut arms: Vec<LocalArm>) -> Vec<LocalArm> {
    arms.sort_by_key(|a| std::cmp::Reverse(a.weight));
    arms
}

fn arm((name, mut section): (String, Section<'_>)) -> LocalArm {
    if !is_name(&name) {
        section.problem(
            "",
            "an arm's name is made of letters, digits, - and _, and does not begin with -",
        );
    }
    let weight = section.integer("weight", 0, crate::model::WEIGHT_MAX);
    let weight = weight.unwrap_or(match name.as_str() {
        "stable" | "blue" => 100,
        _ => 0,
    });
    let release = release(&mut section, false);
    section.finish();
    LocalArm {
        name,
        weight,
        release,
    }
}

fn release(section: &mut Section<'_>, finish: bool) -> Release {
    let image = section.text("image");
    if let Some(image) = image {
        if let Err(why) = ImageReference::parse(&image) {
            section.problem("image", &format!("{image:?} is not REPOSITORY:TAG: {why}"));
        }
        section.finish_in_place();
        return Release {
            version: image.clone(),
            source: Source::Image(image),
        };
    }
    let version = section.required_text("version");
    let urls = section.texts("urls");
    let command = section.texts("command");
    let demo = section.has("demo").then(|| {
        let mut demo = section.section("demo");
        let fault = DemoFault {
            error_rate: demo.number("error-rate", 0.0, 1.0).unwrap_or(0.0),
            latency_ms: demo
                .duration("latency")
                .map_or(0, |ms| u32::try_from(ms).unwrap_or(u32::MAX)),
        };
        demo.finish();
        fault
    });
    for url in urls.iter().flatten() {
        if let Err(why) = address::server(url) {
            section.problem("urls", &format!("{:?} {why}", secret::redacted(url)));
        }
    }
    let given = [urls.is_some(), command.is_some(), demo.is_some()];
    if given.iter().filter(|g| **g).count() != 1 {
        section.problem(
            "",
            "needs exactly one of `urls = [\"http://127.0.0.1:9001\"]`, `command = [\"./server\", \"--port\", \"{port}\"]` and `demo = {}`",
        );
    }
    if finish {
        section.finish_in_place();
    }
    Release {
        version,
        source: match (urls, command) {
            (Some(urls), _) => Source::Urls(urls),
            (None, Some(command)) => Source::Command(command),
            (None, None) => Source::Demo(demo.unwrap_or_default()),
        },
    }
}

fn health(mut section: Section<'_>) -> HealthCheck {
    let d = HealthCheck::default();
    let ms = |value: Option<Millis>, default| {
        value.map_or(default, |v| u32::try_from(v).unwrap_or(u32::MAX))
    };
    let protocol = section.text("protocol");
    let service = section.text("service");
    let protocol = match protocol.as_deref() {
        Some("grpc") => HealthProtocol::Grpc {
            service: service.unwrap_or_default(),
        },
        found => {
            if found.is_some_and(|name| name != "http") {
                section.problem("protocol", "must be \"http\" or \"grpc\"");
            } else if service.is_some() {
                section.problem("service", "belongs to protocol = \"grpc\"");
            }
            HealthProtocol::Http
        }
    };
    let check = HealthCheck {
        protocol,
        path: section.path("path").unwrap_or(d.path),
        interval_ms: ms(section.duration("interval"), d.interval_ms).max(50),
        timeout_ms: ms(section.duration("timeout"), d.timeout_ms).max(10),
        healthy_after: section
            .integer("healthy-after", 1, 10)
            .unwrap_or(d.healthy_after),
        unhealthy_after: section
            .integer("unhealthy-after", 1, 10)
            .unwrap_or(d.unhealthy_after),
    };
    section.finish();
    check
}

fn clients(mut section: Section<'_>) -> Clients {
    let d = Clients::default();
    let ms = |value: Option<Millis>, default| {
        value.map_or(default, |v| u32::try_from(v).unwrap_or(u32::MAX).max(100))
    };
    let clients = Clients {
        connections: section
            .integer("connections", 1, 1_000_000)
            .unwrap_or(d.connections),
        idle_ms: ms(section.duration("idle"), d.idle_ms),
        body_ms: ms(section.duration("body"), d.body_ms),
    };
    section.finish();
    clients
}

fn strategy(mut section: Section<'_>) -> StrategySpec {
    let spec = StrategySpec {
        plugin: section.text("plugin"),
        sha256: section
            .text("sha256")
            .map(|d| d.strip_prefix("sha256:").unwrap_or(&d).to_owned()),
        parameters: section.json("parameters"),
    };
    if let Some(sha) = &spec.sha256
        && !is_sha256(sha)
    {
        section.problem(
            "sha256",
            "must be 64 hexadecimal digits, as sha256sum prints them",
        );
    }
    section.finish();
    spec
}

/// Whether a text is a SHA-256 as sha256sum prints it.
fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn guardrails(mut section: Section<'_>, d: Guardrails) -> Guardrails {
    let trouble = [
        ("rollback", OnTrouble::Rollback),
        ("pause", OnTrouble::Pause),
    ];
    let before_bake = section.has("before-bake").then(|| {
        let mut table = section.section("before-bake");
        let bake = BeforeBake {
            share: table.required_number("share", 0.0, 100.0),
            bake_ms: table.required_duration("bake"),
        };
        table.finish();
        bake
    });
    let guardrails = Guardrails {
        largest_step: section
            .number("largest-step", 1.0, 100.0)
            .unwrap_or(d.largest_step),
        before_bake,
        deadline_ms: section.duration("deadline").unwrap_or(d.deadline_ms),
        on_deadline: section
            .choice("on-deadline", &trouble)
            .unwrap_or(d.on_deadline),
        on_plugin_error: section
            .choice("on-plugin-error", &trouble)
            .unwrap_or(d.on_plugin_error),
        healthy_timeout_ms: section
            .duration("healthy-timeout")
            .unwrap_or(d.healthy_timeout_ms),
        final_bake_ms: section.duration("final-bake").unwrap_or(d.final_bake_ms),
        alarms: section.texts("alarms").unwrap_or_default(),
    };
    if guardrails.alarms.len() > ALARMS_MAX {
        section.problem(
            "alarms",
            &format!("has more than {ALARMS_MAX} names, the most that one rollout watches"),
        );
    }
    if guardrails.deadline_ms == 0 {
        section.problem(
            "deadline",
            "is 0, so the rollout would end at once; write \"2h\"",
        );
    }
    section.finish();
    guardrails
}

fn probe((name, mut section): (String, Section<'_>)) -> Probe {
    let path = section.path("path");
    if path.is_none() && !section.has("path") {
        section.problem(
            "path",
            "is missing; write the path to GET, such as path = \"/healthz\"",
        );
    }
    let probe = Probe {
        name,
        path: path.unwrap_or_default(),
        status: u16::try_from(section.integer("status", 100, 599).unwrap_or(200)).unwrap_or(200),
        contains: section.text("contains"),
        attempts: section.integer("attempts", 1, 100).unwrap_or(3),
        timeout_ms: section
            .duration("timeout")
            .map_or(5_000, |ms| u32::try_from(ms).unwrap_or(u32::MAX)),
    };
    section.finish();
    probe
}

fn query((name, mut section): (String, Section<'_>)) -> Query {
    if name.starts_with("engine:") {
        section.problem(
            "",
            "begins with engine:, as the engine's own queries do; write another name",
        );
    }
    let is_web = |url: &str| url.starts_with("http://") || url.starts_with("https://");
    let kinds = ["url", "prometheus", "cloudwatch"];
    if kinds.iter().filter(|k| section.has(k)).count() != 1 {
        section.problem(
            "",
            "needs exactly one of `url = \"https://…\"`, `prometheus = { server = \"http://…\", query = \"…\" }` and `cloudwatch = { namespace = \"…\", metric = \"…\" }`",
        );
    }
    let source = if section.has("prometheus") {
        let mut table = section.section("prometheus");
        let (server, query) = (table.required_text("server"), table.required_text("query"));
        if !server.is_empty() && !is_web(&server) {
            table.problem("server", "must start with http:// or https://");
        }
        if secret::has_user(&server) {
            table.problem("server", USER);
        } else if is_web(&server) && server.contains(['?', '#']) {
            table.problem(
                "server",
                "has a query or a fragment, behind which /api/v1/query_range cannot be put; write the address and a path, if Prometheus has one",
            );
        }
        for key in ["headers", "basic-auth"] {
            if table.has(key) {
                table.problem(key, "belongs one level up, beside `prometheus`");
            }
        }
        table.finish();
        QuerySource::Prometheus { server, query }
    } else if section.has("cloudwatch") {
        QuerySource::CloudWatch(aws::metric(section.section("cloudwatch")))
    } else {
        let url = section.text("url").unwrap_or_default();
        let pointer = section.text("pointer").unwrap_or_default();
        if !url.is_empty() && !is_web(&url) {
            section.problem("url", "must start with http:// or https://");
        }
        if secret::has_user(&url) {
            section.problem("url", USER);
        }
        if !pointer.is_empty() && !pointer.starts_with('/') {
            section.problem("pointer", "must be a JSON pointer, such as \"/data/value\"");
        }
        QuerySource::Json { url, pointer }
    };
    let has_headers = section.has("headers");
    let headers = headers(section.section("headers"));
    if has_headers && matches!(source, QuerySource::CloudWatch(_)) {
        section.problem("headers", "is for `url` and `prometheus`; AWS has its own");
    }
    let basic_auth = section.has("basic-auth").then(|| {
        let mut table = section.section("basic-auth");
        let login = BasicAuth {
            user: table.required_text("user"),
            password: table.required_text("password"),
        };
        if login.user.contains([':', '\n']) {
            table.problem("user", "must have no colon and be one line");
        }
        table.finish();
        login
    });
    if basic_auth.is_some() {
        if matches!(source, QuerySource::CloudWatch(_)) {
            section.problem(
                "basic-auth",
                "is for `url` and `prometheus`; AWS has its own",
            );
        }
        if headers.iter().any(|(name, _)| name == "authorization") {
            section.problem(
                "basic-auth",
                "and headers.authorization are the same header; leave one of them out",
            );
        }
    }
    section.finish();
    Query {
        name,
        source,
        headers,
        basic_auth,
    }
}

fn headers(mut section: Section<'_>) -> Vec<(String, String)> {
    let mut headers = vec![];
    for name in section.keys() {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || !name.bytes().all(fits) {
            section.problem(
                &name,
                "is not the name of a header; write letters, digits, -, _ and .",
            );
        }
        let value = section.text(&name).unwrap_or_default();
        if value.chars().any(char::is_control) {
            section.problem(&name, "must be one line");
        }
        headers.push((name.to_ascii_lowercase(), value));
    }
    section.finish();
    headers
}

/// Parses the fault of a demo service: `error-rate=0.2`, `latency=+300ms`, or both with
/// a comma between them. The rate is from 0 to 1.
///
/// # Errors
/// What is wrong with the text and what to write instead.
pub fn parse_fault(text: &str) -> Result<DemoFault, String> {
    let mut fault = DemoFault::default();
    let mut seen = BTreeMap::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or_else(|| {
            format!("{part:?} is not KEY=VALUE; write error-rate=0.2 or latency=+300ms")
        })?;
        if seen.insert(key, ()).is_some() {
            return Err(format!("{key} is there twice"));
        }
        match key {
            "error-rate" => {
                fault.error_rate = value
                    .parse()
                    .ok()
                    .filter(|rate| (0.0..=1.0).contains(rate))
                    .ok_or_else(|| format!("error-rate={value}: must be 0 to 1, such as 0.2"))?;
            }
            "latency" => {
                let added = humantime::parse_duration(value.trim_start_matches('+'))
                    .map_err(|e| format!("latency={value}: {e}; write latency=+300ms"))?;
                fault.latency_ms = u32::try_from(added.as_millis())
                    .map_err(|_| format!("latency={value} is too long"))?;
            }
            _ => {
                return Err(format!(
                    "there is no fault {key:?}; there are error-rate and latency"
                ));
            }
        }
    }
    Ok(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_read() {
        let spec = Spec::parse(include_str!("../../../examples/rollouts/local.toml"))
            .unwrap_or_else(|e| panic!("{e}"));
        let TargetSpec::Embedded { local, .. } = &spec.target else {
            panic!("arms mean a balancer of its own");
        };
        assert_eq!(local.arms[0].name, "stable");
        assert_eq!(local.arms[0].weight, 100);
        assert_eq!(spec.strategy.plugin.as_deref(), Some("plugins/canary.wasm"));
    }

    #[test]
    fn every_example_is_valid() {
        for text in [
            include_str!("../../../examples/rollouts/attach.toml"),
            include_str!("../../../examples/rollouts/aws.toml"),
            include_str!("../../../examples/rollouts/blue-green.toml"),
        ] {
            Spec::parse(text).unwrap_or_else(|e| panic!("{e}"));
        }
    }

    #[test]
    fn all_problems_are_reported_at_once_with_their_paths() {
        let error = Spec::parse(
            r#"
            stategy = {}
            promotion = "swop"
            [target]
            kind = "lokal"
            [target.local]
            admin = "0.0.0.0:1"
            [target.local.arms.stable]
            version = "v1"
            [guardrails]
            largest-step = 400
            deadline = "soon"
            before-bake = { share = 10 }
            [probes.smoke]
            status = "ok"
            [queries.accuracy]
            url = "ftp://x"
            "#,
        )
        .expect_err("nothing here is right");
        insta::assert_snapshot!(error.to_string());
    }

    #[test]
    fn a_target_on_aws_is_read_as_strictly() {
        let error = Spec::parse(
            r#"
            [target]
            kind = "aws"
            [target.aws]
            listener = "app"
            stak = "shop"
            [target.aws.arms.only-one]
            service = "prod/app"
            [candidate]
            version = "v2"
            demo = {}
            [guardrails]
            alarms = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]
            [queries.two]
            url = "https://x"
            prometheus = { server = "prom:9090", query = "up" }
            [queries.half]
            cloudwatch = { namespace = "ML", period = "90s" }
            "#,
        )
        .expect_err("nothing here is right");
        insta::assert_snapshot!(error.to_string());
        let error =
            Spec::parse("[guardrails]\nalarms = [\"x\"]\n[candidate]\nimage = \"app:v2\"\n");
        insta::assert_snapshot!(error.expect_err("both need AWS").to_string());
    }

    #[test]
    fn problems_have_lines() {
        let text = "promotion = \"swop\"\n\n[guardrails]\ndeadline = \"1h\"\n\"largest-step\" = 400\n\n[probes.\"smo.ke\"]\nstatus = \"ok\"\n";
        let problems = Spec::parse(text).expect_err("wrong");
        let line = |path: &str| {
            let all = problems.0.iter();
            let found = all.filter(|p| p.path == path).map(|p| p.line);
            found.collect::<Vec<_>>()
        };
        assert_eq!(line("promotion"), [Some(1)]);
        assert_eq!(line("guardrails.largest-step"), [Some(5)]);
        // A key that is missing has the line of its table.
        assert_eq!(line("probes.smo.ke.path"), [Some(7)], "{problems}");
        assert_eq!(line("probes.smo.ke.status"), [Some(8)]);
        let shown = problems.in_file("rollout.toml");
        assert!(
            shown.contains("  rollout.toml:5:1: guardrails.largest-step: is 400"),
            "{shown}"
        );
    }

    #[test]
    fn syntax_errors_point_at_the_line() {
        let error = Spec::parse("[target\n")
            .expect_err("no bracket")
            .to_string();
        assert!(error.contains("line 1"), "{error}");
    }

    #[test]
    fn faults() {
        assert_eq!(
            parse_fault("error-rate=0.2,latency=+300ms"),
            Ok(DemoFault {
                error_rate: 0.2,
                latency_ms: 300
            })
        );
        for wrong in ["error-rate", "error-rate=2", "latency=fast", "smell=bad"] {
            assert!(parse_fault(wrong).is_err(), "{wrong}");
        }
    }
}
