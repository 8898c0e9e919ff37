//! `engine plan`: shows what a rollout on AWS would do.

use clap::Args;

use super::Global;
use super::exit::Exit;
use super::run::RunArgs;
use crate::model::{End, Millis};
use crate::ops::app::App;
use crate::ops::begin::make_ready;
use crate::ops::plan::{self, Plan, Wanted};
use crate::ops::sight::Sight;
use crate::rollout::Options;
use crate::simulate::rehearsal::Rehearsal;
use crate::target::aws::client::Patience;
use crate::view;

/// Show what `engine run` would do on AWS: calls, permissions, times
///
/// Rehearses the rollout with the real plugin on a copy of the target as it is
/// now. AWS is only read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine plan plugins/canary.wasm --stack shop --image REPO:TAG
  engine plan -f rollout.toml --policy > policy.json
  engine plan -f rollout.toml --json | jq .writes")]
pub struct PlanArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Print only the IAM policy that the rollout needs
    #[arg(long)]
    policy: bool,
}

pub(super) async fn plan(app: &App, global: &Global, args: PlanArgs) -> crate::ops::Result<Exit> {
    let ready = make_ready(app, &args.run.request(global)).await?;
    let wanted = match args.policy {
        true => Wanted::Calls,
        false => Wanted::All,
    };
    let plan = plan::plan(app, ready, wanted).await?;
    if args.policy {
        out!("{:#}", plan.policy);
    } else if global.json {
        json!(view::plan::Plan::from(&plan));
    } else {
        print(&plan);
    }
    Ok(Exit::Done)
}

fn print(plan: &Plan) {
    out!(
        "{} on {} ({})",
        plan.header.title(),
        plan.found.address,
        plan.found.route
    );
    for also in &plan.found.also {
        out!("  moves with it: {} ({})", also.place, also.route);
    }
    let changes = plan.changes.iter().filter(|c| !c.differences.is_empty());
    for (n, change) in changes.enumerate() {
        if n == 0 {
            out!("\ntask definitions, if the new version is good:");
        }
        out!("  {change}");
        for difference in &change.differences {
            out!("    {difference}");
        }
    }
    out!("\nwrites, if the new version is good:");
    for write in plan.writes(&plan.good) {
        out!(
            "  {:>8}  {:<24} {}",
            minutes(write.at_ms),
            write.api.name(),
            write.what
        );
    }
    if plan.header.capacity.is_some() {
        out!(
            "  numbers of tasks are by what runs now; a rollout works them out anew before each raise"
        );
    }
    let reads = plan.reads();
    let all: usize = reads.values().sum();
    out!(
        "\nreads, {all} in all, at most {} calls in a minute:",
        plan.busiest_minute()
    );
    for (name, count) in reads {
        out!("  {count:>8}  {name}");
    }
    let ending = |r: &Rehearsal| match r.end {
        Some(End::Promoted) => "promoted".to_owned(),
        Some(End::RolledBack) => "rolled back".to_owned(),
        _ => "waits for a person".to_owned(),
    };
    match &plan.sight {
        Some(sight) => {
            let traffic = sight.traffic();
            out!(
                "\nwith the traffic of the last 15m, {traffic}, {}",
                intro(sight)
            );
            for line in sight.said.iter().flatten() {
                out!("  {line}");
            }
        }
        None => out!(
            "\nno traffic was seen in the last 15m, so what a rollout would show is not known; it was rehearsed with 100 requests a second"
        ),
    }
    out!("\ntimes, as rehearsed:");
    out!(
        "  good version       {} after {}, and the time that ECS needs for {} deployments",
        ending(&plan.good),
        span(plan.good.took_ms),
        plan.good.deployments()
    );
    if plan.good.deployments() > 0 || plan.header.arms[0].version != plan.header.arms[1].version {
        out!(
            "  version that fails  {}, its traffic taken back after {}",
            ending(&plan.bad),
            span(plan.bad.exposed_ms)
        );
    } else {
        out!("  both arms run the same version, so there is nothing to judge");
    }
    if !plan.header.guardrails.alarms.is_empty() {
        out!(
            "  an alarm           seen within {}",
            span(Options::default().guard_poll_ms)
        );
    }
    out!(
        "  the way back       1 write and 4 reads; at most {} for the write with all retries",
        span(u64::try_from(Patience::default().operation.as_millis()).unwrap_or(0))
    );
    if plan.good.approved {
        out!("  approvals are given at once here; add the time that people need");
    }
    let statements = plan.policy["Statement"].as_array().into_iter().flatten();
    let actions: usize = statements
        .map(|statement| statement["Action"].as_array().map_or(0, Vec::len))
        .sum();
    out!("\nneeds {actions} IAM actions; --policy prints them as a policy document");
}

/// What comes before what the strategy says.
fn intro(sight: &Sight) -> String {
    match &sight.said {
        Ok(said) if said.is_empty() => "the strategy says nothing before its first step".to_owned(),
        Ok(_) => "the strategy says:".to_owned(),
        Err(why) => format!("what a rollout would show is not known: {why}"),
    }
}

fn minutes(ms: Millis) -> String {
    format!("{}:{:02}", ms / 60_000, ms / 1_000 % 60)
}

fn span(ms: Millis) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms / 1_000 * 1_000)).to_string()
}
