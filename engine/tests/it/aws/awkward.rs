//! Stacks as people have them: each kind of `tests/fixtures/awkward` is made by
//! CloudFormation and once more by boto3. The first takes a version that is promoted, the
//! second one that goes back, and the AWS CLI shows field by field that nothing else
//! changed.

use std::collections::{BTreeMap, BTreeSet};

use engine::model::End;
use engine::ops::Kind;
use engine::ops::begin::{BeginRequest, make_ready};
use engine::ops::request::AwsRequest;
use engine::ops::status::overview;
use engine::ops::traffic::set_weights;
use engine::ops::way_back::rollback;
use engine::rollout::Standing;
use serde_json::{Value, json};

use crate::support::app::{TestApp, on, on_aws, on_stack, refused, rollout, texts};
use crate::support::aws::bottle::{Bottle, GOOD, Made, Minute, REGION};
use crate::support::aws::emulator::{awkward, aws_each};
use crate::support::guests;

const OLD: &str = "reg.example/shop:v1";
const NEW: &str = "reg.example/shop:v2";

/// Every fifth request goes wrong.
const BAD: Minute = Minute {
    errors: 120,
    ..GOOD
};

/// One way in which a stack was made.
struct Stack {
    made: Made,
    /// Ids of its resources by logical name.
    ids: BTreeMap<String, String>,
}

/// Leaves of what the AWS CLI shows, by their paths.
type Fields = BTreeMap<String, Value>;

/// The stack of that kind as CloudFormation made it, and as boto3 did.
fn stacks(kind: &str) -> [Stack; 2] {
    let built = awkward(kind);
    ["cloudformation", "boto3"].map(|way| {
        let one = &built[way];
        let ids = one["made"].as_object().expect("ids").iter();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let ids: BTreeMap<String, String> = ids.map(|(k, v)| (k.clone(), text(v))).collect();
        let name = text(&one["name"]);
        let made = Made {
            balancer: ids["Balancer"].clone(),
            listener: ids["Listener"].clone(),
            groups: ["StableGroup", "CanaryGroup"].map(|id| ids[id].clone()),
            cluster: name.clone(),
            arms: ["stable", "canary"].map(str::to_owned),
            name,
        };
        Stack { made, ids }
    })
}

impl Stack {
    /// How the engine is told of it where CloudFormation made it.
    fn by_name(&self) -> AwsRequest {
        on_stack(REGION, &self.made.name)
    }

    /// How the engine is told of it by what it is made of.
    fn by_arn(&self) -> AwsRequest {
        match self.ids.get("Rule") {
            None => on(&self.made),
            Some(rule) => AwsRequest {
                listener: None,
                rule: Some(rule.clone()),
                ..on(&self.made)
            },
        }
    }

    /// Everything about it, as the AWS CLI shows it.
    fn fields(&self) -> Fields {
        let of = |kind: &str| {
            let all = self.ids.values().filter(|id| id.contains(kind));
            all.map(String::as_str).collect::<Vec<_>>()
        };
        let (listeners, groups) = (of(":listener/"), of(":targetgroup/"));
        let services: Vec<&str> = of(":service/");
        let (balancer, cluster) = (&*self.made.balancer, &*self.made.cluster);
        let tagged = [&listeners[..], &groups, &[balancer]].concat();
        let elb = |about: &str, key: &str, ids: &[&str]| {
            let words = ["elbv2", &format!("describe-{about}"), key].map(str::to_owned);
            let ids = ids.iter().map(|id| (*id).to_owned());
            words.into_iter().chain(ids).collect::<Vec<_>>()
        };
        let mut about = vec![
            (
                "balancer".to_owned(),
                elb("load-balancers", "--load-balancer-arns", &[balancer]),
            ),
            (
                "balancer attributes".to_owned(),
                elb(
                    "load-balancer-attributes",
                    "--load-balancer-arn",
                    &[balancer],
                ),
            ),
            (
                "listeners".to_owned(),
                elb("listeners", "--listener-arns", &listeners),
            ),
            (
                "target groups".to_owned(),
                elb("target-groups", "--target-group-arns", &groups),
            ),
            ("tags".to_owned(), elb("tags", "--resource-arns", &tagged)),
        ];
        for (nth, arn) in listeners.iter().enumerate() {
            about.push((
                format!("rules {nth}"),
                elb("rules", "--listener-arn", &[arn]),
            ));
            let certificates = elb("listener-certificates", "--listener-arn", &[arn]);
            about.push((format!("certificates {nth}"), certificates));
        }
        for arn in &groups {
            let attributes = elb("target-group-attributes", "--target-group-arn", &[arn]);
            about.push((format!("attributes {}", last_word(arn)), attributes));
        }
        let ecs = [
            "ecs",
            "describe-clusters",
            "--include",
            "TAGS",
            "--clusters",
            cluster,
        ];
        about.push(("cluster".to_owned(), texts(&ecs)));
        let ecs = [
            "ecs",
            "describe-services",
            "--include",
            "TAGS",
            "--cluster",
            cluster,
        ];
        let ecs = [&ecs[..], &["--services"], &services].concat();
        about.push(("services".to_owned(), texts(&ecs)));
        let (mut about, commands): (Vec<_>, Vec<_>) = about.into_iter().unzip();
        let mut shown = aws_each(REGION, &commands);
        let described = shown.last().expect("services")["services"].clone();
        let definitions = described.as_array().expect("a list").iter().map(|service| {
            let text = |key: &str| service[key].as_str().expect("a text");
            let definition = ["ecs", "describe-task-definition", "--include", "TAGS"];
            let definition = [
                &definition[..],
                &["--task-definition", text("taskDefinition")],
            ];
            about.push(format!(
                "task definition {}",
                last_word(text("serviceName"))
            ));
            texts(&definition.concat())
        });
        shown.extend(aws_each(REGION, &definitions.collect::<Vec<_>>()));
        let mut fields = Fields::new();
        for (about, shown) in about.iter().zip(&shown) {
            // The only member of an answer needs no name.
            let members = shown.as_object().expect("an object").iter();
            let members = members.filter(|(key, _)| *key != "failures");
            let members: Vec<_> = members.collect();
            match members[..] {
                [(_, only)] => flatten(about, only, &mut fields),
                _ => flatten(about, shown, &mut fields),
            }
        }
        fields
    }
}

/// The last word of a name, or of that in the ARN of a group: the arm.
fn last_word(name: &str) -> String {
    let name = name.split('/').nth(1).unwrap_or(name);
    let word = name.rsplit('-').next();
    word.unwrap_or_default().to_owned()
}

/// Writes the leaves of a value under their paths. Elements of a list are told apart by
/// a name or key where they have one.
fn flatten(path: &str, value: &Value, fields: &mut Fields) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                flatten(&format!("{path}.{key}"), value, fields);
            }
        }
        Value::Array(elements) => {
            for (nth, element) in elements.iter().enumerate() {
                let keys = ["name", "key", "Key", "Priority", "Port"].iter();
                let mut named = keys.filter_map(|key| match &element[*key] {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(number) => Some(number.to_string()),
                    _ => None,
                });
                let of_arm = ["TargetGroupArn", "targetGroupArn", "serviceName"].iter();
                let is_action = element.get("Type").is_some();
                let mut of_arm = of_arm
                    .filter(|_| !is_action)
                    .filter_map(|key| element[*key].as_str());
                let named = of_arm.next().map(last_word).or_else(|| named.next());
                let named = named.unwrap_or_else(|| nth.to_string());
                flatten(&format!("{path}.{named}"), element, fields);
            }
            fields.insert(format!("{path}.length"), json!(elements.len()));
        }
        leaf => {
            fields.insert(path.to_owned(), leaf.clone());
        }
    }
}

/// The paths that are not the same in both.
fn differences<T: PartialEq>(
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
) -> BTreeSet<String> {
    let all = before.keys().chain(after.keys());
    all.filter(|path| before.get(*path) != after.get(*path))
        .cloned()
        .collect()
}

/// What may differ when an arm has got another image, and has to.
fn of_a_new_version(arm: &str) -> BTreeSet<String> {
    let service = format!("services.{arm}");
    let definition = format!("task definition {arm}.taskDefinition");
    [
        format!("{service}.taskDefinition"),
        format!("{service}.deployments.0.id"),
        format!("{service}.deployments.0.taskDefinition"),
        format!("{service}.deployments.0.rolloutStateReason"),
        format!("{service}.deployments.0.createdAt"),
        format!("{service}.deployments.0.updatedAt"),
        format!("{definition}.taskDefinitionArn"),
        format!("{definition}.revision"),
        format!("{definition}.registeredAt"),
        format!("{definition}.containerDefinitions.app.image"),
    ]
    .into()
}

/// What may differ when weights were moved, and has to: a listener shows its action once
/// more as its rule without conditions.
fn of_other_weights(before: &Fields) -> BTreeSet<String> {
    let weights = before.keys().filter(|path| path.ends_with(".Weight"));
    let ours = weights.filter(|path| path.contains(".stable.") || path.contains(".canary."));
    ours.cloned().collect()
}

/// News of a service, which every deployment makes.
fn is_news(path: &str) -> bool {
    path.starts_with("services.") && path.contains(".events.")
}

/// The fields as both ways of making a stack must have them: without what is counted or
/// timed for each of its own.
fn alike(stack: &Stack, fields: &Fields) -> BTreeMap<String, String> {
    let times = ["CreatedTime", "createdAt", "updatedAt", "registeredAt"];
    let lasting = fields
        .iter()
        .filter(|(path, _)| !is_news(path) && !times.iter().any(|time| path.ends_with(time)));
    let plain = |value: &Value| without_ids(&value.to_string().replace(&stack.made.name, "NAME"));
    lasting.map(|(k, v)| (k.clone(), plain(v))).collect()
}

/// The text with its long hexadecimal numbers taken out.
fn without_ids(text: &str) -> String {
    let is_long = |part: &&str| part.len() < 16 || part.chars().any(|c| !c.is_ascii_hexdigit());
    let parts = text.split(['/', '"', ' ', '-']).filter(is_long);
    parts.collect::<Vec<_>>().join(" ")
}

/// What is awkward about a stack, by the paths that show it.
type Signs<'a> = &'a [(&'a str, Value)];

/// Both ways of making it, seen by the AWS CLI; see the module.
async fn survives(kind: &str, signs: Signs<'_>) {
    survives_when(kind, signs, |_, _| (), &[]).await;
}

/// The same where a person has to name something, because the engine asks so.
async fn survives_when(
    kind: &str,
    signs: Signs<'_>,
    name: impl Fn(&Stack, &mut AwsRequest),
    asks: &[&str],
) {
    let [first, second] = stacks(kind);
    let made = [first.fields(), second.fields()];
    for (path, value) in signs {
        assert_eq!(made[0].get(*path), Some(value), "{path}");
    }
    let plain = [alike(&first, &made[0]), alike(&second, &made[1])];
    let differ = differences(&plain[0], &plain[1]);
    let differ = differ.iter().map(|path| {
        let [first, second] = [&plain[0], &plain[1]].map(|fields| fields.get(path));
        format!("{path}: {first:?} and {second:?}")
    });
    assert_eq!(differ.collect::<Vec<_>>(), [""; 0], "by both ways");

    if !asks.is_empty() {
        let request = a_new_version(first.by_name());
        refused(
            make_ready(&TestApp::new().app, &request).await,
            Kind::Usage,
            asks,
        );
    }
    let mut at = first.by_name();
    name(&first, &mut at);
    let after = whole_rollout(&first, at, GOOD, &made[0]).await;
    let both = of_a_new_version("stable").into_iter();
    let both = both.chain(of_a_new_version("canary")).collect();
    only(&made[0], &after, &both);
    versions(&after, [NEW, NEW]);

    let mut at = second.by_arn();
    name(&second, &mut at);
    let after = whole_rollout(&second, at, BAD, &made[1]).await;
    only(&made[1], &after, &of_a_new_version("canary"));
    versions(&after, [OLD, NEW]);
}

/// These fields have changed and no other.
#[track_caller]
fn only(before: &Fields, after: &Fields, allowed: &BTreeSet<String>) {
    let mut changed = differences(before, after);
    changed.retain(|path| !is_news(path));
    let surplus: Vec<&String> = changed.difference(allowed).collect();
    assert_eq!(surplus, [""; 0], "changed");
    let missing: Vec<&String> = allowed.difference(&changed).collect();
    assert_eq!(missing, [""; 0], "did not change");
}

#[track_caller]
fn versions(fields: &Fields, wanted: [&str; 2]) {
    let image = |arm| {
        let definition = format!("task definition {arm}.taskDefinition");
        &fields[&format!("{definition}.containerDefinitions.app.image")]
    };
    assert_eq!([image("stable"), image("canary")], wanted);
}

fn a_new_version(aws: AwsRequest) -> BeginRequest {
    let set = ["steps=10,50,100", "gate=limits", "bake=5m"];
    BeginRequest {
        image: Some(NEW.to_owned()),
        ..rollout("canary", on_aws(aws), &set)
    }
}

/// Moves the weights and back, and then makes a rollout to its end.
async fn whole_rollout(stack: &Stack, aws: AwsRequest, minute: Minute, before: &Fields) -> Fields {
    let test = TestApp::new();
    let at = on_aws(aws.clone());
    let moved = set_weights(&test.app, &at, &texts(&["70", "30"])).await;
    moved.expect("moved");
    let meanwhile = stack.fields();
    only(before, &meanwhile, &of_other_weights(before));
    for path in of_other_weights(before) {
        let share = if path.contains(".stable.") { 70 } else { 30 };
        assert_eq!(meanwhile[&path], share, "{path}");
    }
    let back = set_weights(&test.app, &at, &texts(&["100", "0"])).await;
    back.expect("moved back");

    let request = a_new_version(aws);
    let ready = make_ready(&test.app, &request).await.expect("ready");
    let differences: Vec<String> = ready
        .changes
        .iter()
        .flat_map(|change| change.differences.iter().map(ToString::to_string))
        .collect();
    let told = format!("app.image: {OLD} -> {NEW}");
    assert_eq!(differences, [told.clone(), told], "before anything is done");
    let plugin = guests::plugin("canary").await;
    let bottle = Bottle::of(stack.made.clone(), plugin, ready).await;
    bottle.traffic(0, -10..60, GOOD).await;
    bottle.traffic(1, -10..60, minute).await;
    let standing = bottle.run().await;
    let wanted = match minute.errors {
        0 => End::Promoted,
        _ => End::RolledBack,
    };
    assert!(
        matches!(&standing, Standing::Over(end, _) if *end == wanted),
        "{standing:?}"
    );
    stack.fields()
}

// Load balancers.

#[tokio::test(flavor = "multi_thread")]
async fn http_that_redirects_to_https() {
    let signs = [
        ("listeners.80.DefaultActions.0.Type", json!("redirect")),
        ("listeners.443.Protocol", json!("HTTPS")),
    ];
    survives("redirecting-80", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_by_openid_connect() {
    let config = "listeners.443.DefaultActions.0.AuthenticateOidcConfig";
    let signs = [
        (&*format!("{config}.ClientId"), json!("shop")),
        (
            &*format!("{config}.AuthenticationRequestExtraParams.prompt"),
            json!("login"),
        ),
    ];
    survives("oidc", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_by_cognito() {
    let action = "listeners.443.DefaultActions.0";
    let signs = [
        (
            &*format!("{action}.AuthenticateCognitoConfig.UserPoolDomain"),
            json!("shop-login"),
        ),
        (&*format!("{action}.Order"), json!(10)),
    ];
    survives("cognito", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_with_conditions_of_each_kind() {
    let conditions = "rules 0.10.Conditions";
    let signs = [
        (
            &*format!("{conditions}.0.HostHeaderConfig.Values.1"),
            json!("*.shop.example"),
        ),
        (
            &*format!("{conditions}.1.PathPatternConfig.Values.0"),
            json!("/checkout/*"),
        ),
        (
            &*format!("{conditions}.2.HttpHeaderConfig.HttpHeaderName"),
            json!("X-Channel"),
        ),
        (
            &*format!("{conditions}.3.QueryStringConfig.Values.lang.Value"),
            json!("en"),
        ),
    ];
    survives("conditions", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stick_to_a_group_and_to_a_task() {
    let config = "listeners.80.DefaultActions.0.ForwardConfig";
    let of_group = "attributes canary";
    let signs = [
        (
            &*format!("{config}.TargetGroupStickinessConfig.DurationSeconds"),
            json!(300),
        ),
        (
            &*format!("{of_group}.stickiness.enabled.Value"),
            json!("true"),
        ),
        (
            &*format!("{of_group}.slow_start.duration_seconds.Value"),
            json!("60"),
        ),
    ];
    survives("stickiness", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_whose_order_decides() {
    let signs = [
        ("rules 0.7.Actions.0.Type", json!("fixed-response")),
        ("rules 0.40.Actions.0.Type", json!("forward")),
        ("rules 0.50000.Actions.0.Type", json!("redirect")),
    ];
    survives("priorities", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_group_without_traffic() {
    let groups = "listeners.80.DefaultActions.0.ForwardConfig.TargetGroups";
    let signs = [(&*format!("{groups}.other.Weight"), json!(0))];
    let name = |stack: &Stack, at: &mut AwsRequest| {
        let groups = stack.made.arms.iter().zip(&stack.made.groups);
        at.arms = groups
            .map(|(arm, group)| format!("{arm}={group}"))
            .collect();
    };
    let asks = ["forwards to 3 target groups", "--arm NAME=GROUP"];
    survives_when("third-group", &signs, name, &asks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_certificates() {
    let signs = [
        ("certificates 0.length", json!(2)),
        (
            "listeners.443.SslPolicy",
            json!("ELBSecurityPolicy-TLS13-1-2-Res-2021-06"),
        ),
    ];
    survives("certificates", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_another_team_beside() {
    let signs = [("rules 0.5.Actions.0.Type", json!("forward"))];
    survives("foreign-rule", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_load_balancer_is_refused_and_left_alone() {
    let [first, second] = stacks("network-balancer");
    // There is a stack of the first one only.
    for (stack, ways) in [(first, 2), (second, 1)] {
        let before = stack.fields();
        let test = TestApp::new();
        let says = &["application load balancer"];
        let both = [stack.by_arn(), stack.by_name()];
        for aws in both.into_iter().take(ways) {
            let at = on_aws(aws.clone());
            let set = set_weights(&test.app, &at, &texts(&["90", "10"])).await;
            refused(set, Kind::Usage, says);
            let seen = overview(&test.app, &at, None).await;
            refused(seen, Kind::Usage, says);
            refused(rollback(&test.app, &at, None).await, Kind::Usage, says);
            let request = a_new_version(aws);
            refused(make_ready(&test.app, &request).await, Kind::Usage, says);
        }
        only(&before, &stack.fields(), &BTreeSet::new());
    }
}

// Task definitions and services.

/// The containers of the stable arm's definition.
const CONTAINERS: &str = "task definition stable.taskDefinition.containerDefinitions";

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_in_front() {
    let signs = [
        (
            "services.stable.loadBalancers.stable.containerName",
            json!("envoy"),
        ),
        (
            &*format!("{CONTAINERS}.envoy.ulimits.nofile.softLimit"),
            json!(15_000),
        ),
    ];
    survives("envoy", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nginx_in_front() {
    let signs = [
        (
            "services.canary.loadBalancers.canary.containerName",
            json!("nginx"),
        ),
        (
            &*format!("{CONTAINERS}.nginx.dependsOn.0.condition"),
            json!("START"),
        ),
    ];
    survives("nginx", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_through_fluent_bit() {
    let router = format!("{CONTAINERS}.log-router.firelensConfiguration");
    let signs = [
        (
            &*format!("{router}.options.config-file-value"),
            json!("/extra.conf"),
        ),
        (
            &*format!("{CONTAINERS}.app.logConfiguration.options.Name"),
            json!("cloudwatch_logs"),
        ),
        (
            &*format!("{CONTAINERS}.app.logConfiguration.secretOptions.length"),
            json!(1),
        ),
    ];
    survives("firelens", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_a_registry_with_a_password() {
    let signs = [
        (
            &*format!("{CONTAINERS}.app.secrets.API_KEY.valueFrom"),
            json!("/shop/api-key"),
        ),
        (
            &*format!("{CONTAINERS}.app.environmentFiles.0.type"),
            json!("s3"),
        ),
    ];
    survives("secrets", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_of_efs() {
    let volumes = "task definition stable.taskDefinition.volumes";
    let config = format!("{volumes}.uploads.efsVolumeConfiguration.authorizationConfig");
    let signs = [
        (&*format!("{config}.iam"), json!("ENABLED")),
        (&*format!("{CONTAINERS}.app.mountPoints.length"), json!(2)),
    ];
    survives("efs", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_storage() {
    let size = "task definition stable.taskDefinition.ephemeralStorage.sizeInGiB";
    survives("ephemeral-storage", &[(size, json!(100))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_on_arm() {
    let platform = "task definition stable.taskDefinition.runtimePlatform.cpuArchitecture";
    survives("arm64", &[(platform, json!("ARM64"))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn capacity_providers() {
    let service = "services.canary";
    let spot = format!("{service}.capacityProviderStrategy.1");
    let signs = [
        (&*format!("{spot}.capacityProvider"), json!("FARGATE_SPOT")),
        (
            &*format!("{service}.deployments.0.capacityProviderStrategy.0.base"),
            json!(1),
        ),
    ];
    survives("capacity-providers", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn service_connect() {
    let config = "services.canary.deployments.0.serviceConnectConfiguration";
    let signs = [
        (&*format!("{config}.namespace"), json!("shop.local")),
        (
            &*format!("{config}.services.0.clientAliases.0.dnsName"),
            json!("shop"),
        ),
    ];
    survives("service-connect", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_log_in_to_tasks() {
    let service = "services.stable";
    let alarms = format!("{service}.deploymentConfiguration.alarms");
    let signs = [
        (&*format!("{service}.enableExecuteCommand"), json!(true)),
        (
            &*format!("{service}.healthCheckGracePeriodSeconds"),
            json!(90),
        ),
        (&*format!("{alarms}.alarmNames.0"), json!("shop-errors")),
    ];
    survives("exec", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_on_everything() {
    let signs = [
        (
            "task definition canary.tags.cost-centre.value",
            json!("4711"),
        ),
        ("services.canary.tags.team.value", json!("shop")),
        ("services.canary.propagateTags", json!("SERVICE")),
        ("cluster.0.tags.team.value", json!("shop")),
        ("tags.3.Tags.team.Value", json!("shop")),
    ];
    survives("tags", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_wait_for_each_other() {
    let signs = [
        (
            &*format!("{CONTAINERS}.app.dependsOn.1.condition"),
            json!("HEALTHY"),
        ),
        (
            &*format!("{CONTAINERS}.cache.healthCheck.startPeriod"),
            json!(10),
        ),
        (
            &*format!("{CONTAINERS}.app.linuxParameters.capabilities.drop.0"),
            json!("ALL"),
        ),
        (
            &*format!("{CONTAINERS}.app.dockerLabels.Team"),
            json!("shop"),
        ),
    ];
    survives("dependencies", &signs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_containers_of_one_repository() {
    let signs = [(&*format!("{CONTAINERS}.worker.command.0"), json!("work"))];
    let name = |_: &Stack, at: &mut AwsRequest| at.container = Some("app".to_owned());
    let asks = [
        "app (reg.example/shop:v1)",
        "worker (reg.example/shop:v1)",
        "--container NAME",
    ];
    survives_when("two-of-one-repository", &signs, name, &asks).await;
}
