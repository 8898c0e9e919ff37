//! Tells a journal in plain sentences. The terminal, `history`, `explain`, pictures and
//! tests of plugins all take their words from here. Pure: no colours, no printing.

use super::exchanges::{Exchange, Question, Reader, Told};
use super::{Actor, Call, Entry, Event, Header, Reply, time};
use crate::model::percent;
use crate::model::query::Count;
use crate::model::{
    Decider, Decision, ErrorKind, Goal, Level, Millis, Outcome, Role, Verdict, Wake, Weights,
};

/// One thing that happened, in a sentence without a full stop. `None` for what people do
/// not need to read: intents, waits that ran out, and answers that are data.
#[must_use]
pub fn sentence(exchange: &Exchange<'_>) -> Option<String> {
    match exchange.told {
        Told::Asked(_) => None,
        Told::Answered {
            question,
            reply,
            recovered,
        } => answered(&question, reply, recovered),
        Told::Other(event) => happened(event),
    }
}

fn answered(question: &Question<'_>, reply: &Reply, recovered: bool) -> Option<String> {
    Some(match (question.call, reply) {
        (_, Reply::Woke(Wake::Signal(signal))) => format!("{} by {}", signal.name, signal.actor),
        (Call::Log { message, .. }, _) => message.clone(),
        (Call::Report { finding }, _) => finding.to_string(),
        (Call::Progress { note, .. }, _) => note.clone(),
        (Call::Probe { name }, Reply::Probed(report)) => {
            let outcome = if report.ok { "passed" } else { "failed" };
            format!("probe {name} {outcome}: {}", report.detail)
        }
        (Call::GetElsewhere, Reply::Elsewhere(_)) => format!("other routes: {reply}"),
        // The host asks for it on a way back alone.
        (Call::GetHealth, Reply::Failed(error)) if question.by == Actor::Host => {
            format!("the way back goes on without the health of the arms: {error}")
        }
        (Call::GetScaling, Reply::Scaling(_)) => format!("auto scaling has come: {reply}"),
        // Many targets do not count them, and a strategy asks to find out.
        (Call::Query { name, .. }, Reply::Failed(error))
            if Count::of_query(name).is_some() && error.kind == ErrorKind::NotFound =>
        {
            return None;
        }
        // A write that was never sent was refused; every other call has failed.
        (call, Reply::Failed(error)) if call.is_write() && !question.in_two => {
            format!("{call} refused: {error}")
        }
        (call, Reply::Failed(error)) => format!("{call} failed: {error}"),
        (call, Reply::Done) if call.is_write() && question.in_two => {
            let found = if recovered {
                " (found done after a restart)"
            } else {
                ""
            };
            format!("{}{found}", done(call))
        }
        _ => return None,
    })
}

/// What a write has changed that was done.
fn done(call: &Call) -> String {
    match call {
        Call::SetWeights { weights } => format!("traffic: {}", weights.shares()),
        Call::SwitchColor { color } => format!("traffic: all to {color}"),
        Call::SetVersion { arm, release } => format!("{arm} gets {}", release.version),
        Call::SetTasks { arm, tasks } => format!(
            "{arm} has {tasks} {}",
            if *tasks == 1 { "task" } else { "tasks" }
        ),
        Call::SetScaling { arm, scaling } => format!("auto scaling of {arm}: {scaling}"),
        call => call.to_string(),
    }
}

fn happened(event: &Event) -> Option<String> {
    Some(match event {
        Event::Finished(outcome) => finished(outcome),
        Event::Failed { reason } => format!("the strategy failed: {reason}"),
        Event::Held { hold, .. } => format!("holds: {hold}"),
        Event::Continued { actor, adopted, .. } => {
            format!("continued {}", continued(actor, adopted.as_ref()))
        }
        Event::Decided { goal, reason, .. } => match goal {
            Goal::Promote => format!("promoting: {reason}"),
            Goal::RollBack => format!("rolling back: {reason}"),
        },
        Event::Ignored { name, .. } => format!("{name} was ignored: it cannot be obeyed now"),
        Event::TookBack {
            to, actor, refused, ..
        } => match refused {
            None => format!("all traffic taken to {to}, as {actor} asked"),
            Some(why) => format!("{actor} asked for all traffic on {to}; refused: {why}"),
        },
        Event::Diverged(mismatch) => format!("diverged: {mismatch}"),
        Event::Ended { end, reason } => format!("{end}: {reason}"),
        Event::Started(_)
        | Event::Asked { .. }
        | Event::Answered { .. }
        | Event::Exchanged { .. } => return None,
    })
}

/// What a strategy decided, which is not yet done.
fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Promoted => "promotes",
        Verdict::RolledBack => "rolls back",
        Verdict::Inconclusive => "cannot tell",
    }
}

fn finished(outcome: &Outcome) -> String {
    format!("{}: {}", verdict(outcome.verdict), outcome.reason)
}

/// Where a rollout goes, who decided it and why.
#[must_use]
pub fn decided(goal: Goal, by: &Decider, reason: &str) -> String {
    format!("{goal} ({by}): {reason}")
}

fn continued(actor: &str, adopted: Option<&Weights>) -> String {
    match adopted {
        Some(weights) => format!("by {actor}, with {weights} taken over"),
        None => format!("by {actor}"),
    }
}

/// A decision in as few words as fit beside its mark in a picture. `None` for what is not
/// a decision, and for decisions that another entry tells.
#[must_use]
pub fn label(exchange: &Exchange<'_>) -> Option<String> {
    Some(match exchange.told {
        Told::Answered {
            reply: Reply::Woke(Wake::Signal(_)),
            ..
        } => return sentence(exchange),
        Told::Answered { question, .. } => match question.call {
            Call::Report { finding } => match finding.decision {
                Decision::Advance | Decision::Hold => finding.decision.to_string(),
                Decision::Stay | Decision::RollBack => return None,
            },
            _ => return None,
        },
        Told::Other(Event::Held { hold, .. }) => hold.to_string(),
        Told::Other(Event::Finished(outcome)) => verdict(outcome.verdict).to_owned(),
        // The verdict of the strategy was told by the entry before.
        Told::Other(Event::Decided {
            goal, by, reason, ..
        }) if *by != Decider::Strategy => match goal {
            Goal::Promote => verdict(Verdict::Promoted).to_owned(),
            Goal::RollBack => reason.clone(),
        },
        Told::Asked(_) | Told::Other(_) => return None,
    })
}

/// That the strategy itself took the candidate's share back for a while, in a few words;
/// `before` are the weights before this exchange. `None` for every other change.
#[must_use]
pub fn retreat(exchange: &Exchange<'_>, before: &Weights, header: &Header) -> Option<String> {
    let after = exchange.weights_after(before)?;
    let (question, _) = exchange.answered()?;
    let candidate = header.arm(Role::Candidate);
    let (from, to) = (before.share(candidate), after.share(candidate));
    (question.by == Actor::Strategy && to < from).then(|| format!("retreats to {} %", percent(to)))
}

/// One line of `history`: everything, in order.
#[must_use]
pub fn history(exchange: &Exchange<'_>) -> String {
    let (word, text) = match exchange.told {
        Told::Asked(Question { by, call, .. }) => ("asked", format!("{by} {call}")),
        Told::Answered {
            question,
            reply,
            recovered,
        } if question.in_two => {
            let found = if recovered { " (recovered)" } else { "" };
            ("answered", format!("#{} {reply}{found}", question.seq))
        }
        Told::Answered {
            question: Question { by, call, .. },
            reply,
            ..
        } => match reply {
            Reply::Done => ("call", format!("{by} {call}")),
            reply => ("call", format!("{by} {call} -> {reply}")),
        },
        Told::Other(event) => listed(event),
    };
    let text = format!("{word:<10} {text}");
    let at = time(exchange.at);
    format!("{:>5}  {at}  {}", exchange.seq, indented(&text))
}

/// The kind of an event in one word, and what it says.
fn listed(event: &Event) -> (&'static str, String) {
    match event {
        Event::Started(header) => {
            let (title, target) = (header.title(), &header.identity);
            let text = format!("{title} on {target} with {}", header.baseline);
            ("started", text)
        }
        Event::Finished(outcome) => ("finished", finished(outcome)),
        Event::Failed { reason } => ("failed", reason.clone()),
        Event::Held { hold, .. } => ("held", hold.to_string()),
        Event::Continued { actor, adopted, .. } => {
            ("continued", continued(actor, adopted.as_ref()))
        }
        Event::Decided {
            goal, by, reason, ..
        } => ("decided", decided(*goal, by, reason)),
        Event::Ignored { name, .. } => ("ignored", name.clone()),
        Event::TookBack {
            to, actor, refused, ..
        } => {
            let asked = format!("all traffic to {to}, asked by {actor}");
            match refused {
                None => ("took back", asked),
                Some(why) => ("refused", format!("{asked}: {why}")),
            }
        }
        Event::Diverged(mismatch) => ("diverged", mismatch.to_string()),
        Event::Ended { end, reason } => ("ended", format!("{end}: {reason}")),
        // These are told as questions and answers, so they do not get here.
        Event::Asked { .. } | Event::Answered { .. } | Event::Exchanged { .. } => {
            ("call", String::new())
        }
    }
}

/// Turns a journal into the lines that a person wants to see while it grows.
#[derive(Debug)]
pub struct Narrator {
    rollout: String,
    reader: Reader,
    last_note: String,
    last_line: String,
    last_finding: String,
    last_report: String,
}

impl Narrator {
    /// A narrator of this rollout.
    #[must_use]
    pub fn new(rollout: &str) -> Self {
        Self {
            rollout: rollout.to_owned(),
            reader: Reader::default(),
            last_note: String::new(),
            last_line: String::new(),
            last_finding: String::new(),
            last_report: String::new(),
        }
    }

    /// What to say about an entry, with its time of day (UTC); `None` for most reads, and
    /// for what the line before has said.
    pub fn line(&mut self, entry: &Entry) -> Option<String> {
        let mut reader = std::mem::take(&mut self.reader);
        let text = reader.read(entry, |exchange| self.news(&exchange));
        self.reader = reader;
        let text = text.flatten()?;
        Some(format!("{}  {}", clock(entry.at), indented(&text)))
    }

    fn news(&mut self, exchange: &Exchange<'_>) -> Option<String> {
        let mut always = false;
        let text = match exchange.told {
            Told::Asked(question) => self.approval(&question)?,
            Told::Answered { question, .. } => {
                let text = sentence(exchange)?;
                match question.call {
                    Call::Log { level, .. } if *level == Level::Debug => return None,
                    Call::Log { .. } => always = true,
                    call if call.is_write() => always = true,
                    Call::Report { finding } if finding.decision == Decision::Stay => return None,
                    Call::Report { finding } => {
                        self.last_finding.clone_from(&finding.explanation);
                        let plain = without_digits(&text);
                        if plain == self.last_report && finding.decision == Decision::Hold {
                            return None;
                        }
                        self.last_report = plain;
                    }
                    Call::Progress { .. } => {
                        let plain = without_digits(&text);
                        if plain == self.last_note {
                            return None;
                        }
                        self.last_note = plain;
                    }
                    _ => {}
                }
                text
            }
            // After a verdict comes a decision that says the same, and the caller shows the
            // end with more than its entry has.
            Told::Other(Event::Finished(_) | Event::Ended { .. }) => return None,
            Told::Other(Event::Decided { .. }) => self.without_finding(sentence(exchange)?),
            Told::Other(_) => sentence(exchange)?,
        };
        // A line that differs from the one before only in its numbers is left out, unless
        // the strategy itself logs it, or something was changed.
        let plain = if always {
            text.clone()
        } else {
            without_digits(&text)
        };
        if plain == self.last_line {
            return None;
        }
        self.last_line = plain;
        Some(text)
    }

    /// A decision without the words of the finding that it follows from, which were told
    /// just before.
    fn without_finding(&self, decided: String) -> String {
        match decided.strip_suffix(self.last_finding.as_str()) {
            Some(rest) if !self.last_finding.is_empty() => {
                rest.trim_end_matches([':', ' ']).to_owned()
            }
            _ => decided,
        }
    }

    /// How to end a wait for a person.
    fn approval(&self, question: &Question<'_>) -> Option<String> {
        let id = &self.rollout;
        question
            .call
            .asks_for_approval()
            .then(|| format!("waits: `engine approve {id}` lets it go on"))
    }
}

/// A time of day in UTC, `22:41:03`.
fn clock(at: Millis) -> String {
    let stamp = time(at).to_string();
    stamp.split_once('T').map_or(stamp.clone(), |(_, time)| {
        time.trim_end_matches('Z').to_owned()
    })
}

/// A span of time in whole seconds, `1m 30s`.
#[must_use]
pub fn span(ms: Millis) -> String {
    humantime::format_duration(std::time::Duration::from_secs(ms / 1_000)).to_string()
}

/// A text whose further lines are indented, so that they do not look like entries.
fn indented(text: &str) -> String {
    text.replace('\n', "\n          ")
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}
