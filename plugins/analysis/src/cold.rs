//! Tells cold tasks from a regression: what is wrong in the first intervals after a raise
//! must still be wrong in those that follow, or have been wrong before the raise, when the
//! tasks were warm.

use crate::Counts;

/// Bad events that the early excess must make due in the later intervals before they are
/// held against it.
const DUE: f64 = 5.0;
/// The part of the early excess that a warm one must have to bear it out.
const BORNE_OUT: f64 = 0.4;
/// The part of the early excess below which the later one says that it is gone. What lies
/// between leaves it open: a weak fault looks like that by chance.
const GONE: f64 = 0.2;
/// Standard deviations by which it must be below the early one for that.
const SURELY: f64 = 2.0;

/// The intervals of one stream since the last raise of the candidate's share.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Cold {
    /// ln A_k when the share was raised.
    before: Vec<f64>,
    /// Counts of candidate and stable in the first intervals.
    early: [Counts; 2],
    /// The same in those that followed.
    late: [Counts; 2],
    /// The same in those that followed the raise before, when its tasks were warm.
    warm: [Counts; 2],
    /// Whether it is settled what the early ones mean.
    settled: bool,
}

/// What the later intervals say of the early ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Early {
    /// It is not known yet: evidence of this stream alone does not decide.
    Open,
    /// It is as bad as before, or nothing was wrong: evidence counts as ever.
    Counts,
    /// It is gone: the tasks were cold, and the evidence of that time is taken back.
    Gone,
}

impl Cold {
    /// Begins again, because the share was raised; `log_a` is ln A_k before.
    pub(crate) fn raised(&mut self, log_a: &[f64]) {
        *self = Self {
            before: log_a.to_vec(),
            warm: self.late,
            ..Self::default()
        };
    }

    /// ln A_k when the share was raised.
    pub(crate) fn before(&self) -> &[f64] {
        &self.before
    }

    /// Adds an interval, the `age`th since the raise, of which the first `cold` are early.
    pub(crate) fn look(&mut self, age: u32, cold: u32, arms: [Counts; 2]) -> Early {
        if cold == 0 {
            return Early::Counts;
        }
        if age < cold {
            sum(&mut self.early, arms);
            let early = excess(self.early);
            let due = self.warm[0].of * early;
            return if due >= DUE && excess(self.warm) >= BORNE_OUT * early {
                Early::Counts
            } else {
                Early::Open
            };
        }
        sum(&mut self.late, arms);
        if self.settled || age >= 2 * cold {
            return Early::Counts;
        }
        let (early, late) = (excess(self.early), excess(self.late));
        let due = self.late[0].of * early.max(0.0);
        if early <= 0.0 || late >= BORNE_OUT * early && self.late[0].of > 0.0 {
            self.settled = due >= DUE;
            return Early::Counts;
        }
        let missing = due - late * self.late[0].of;
        let surely = missing >= SURELY * deviation(self.late, early);
        if due >= DUE && late < GONE * early && surely {
            self.settled = true;
            return Early::Gone;
        }
        Early::Open
    }
}

fn sum(sums: &mut [Counts; 2], arms: [Counts; 2]) {
    for (sum, new) in sums.iter_mut().zip(arms) {
        *sum = Counts::new(sum.bad + new.bad, sum.of + new.of);
    }
}

/// Standard deviation of the candidate's number of bad events beyond stable's rate, if the
/// excess of its rate is this.
fn deviation([candidate, stable]: [Counts; 2], excess: f64) -> f64 {
    let scale = candidate.of / stable.of.max(1.0);
    let of_stable = scale * stable.bad;
    (of_stable + excess * candidate.of + scale * of_stable).sqrt()
}

/// By how much the candidate's rate is above stable's.
fn excess([candidate, stable]: [Counts; 2]) -> f64 {
    candidate.bad / candidate.of.max(1.0) - stable.bad / stable.of.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: [Counts; 2] = [
        Counts { bad: 0.0, of: 60.0 },
        Counts {
            bad: 1.0,
            of: 1_140.0,
        },
    ];

    fn bad(events: f64) -> [Counts; 2] {
        [Counts::new(events, 60.0), FEW[1]]
    }

    #[test]
    fn what_is_gone_is_taken_back_once_enough_would_have_been_due() {
        let mut cold = Cold::default();
        cold.raised(&[0.5]);
        for age in 0..3 {
            assert_eq!(cold.look(age, 3, bad(2.0)), Early::Open);
        }
        // Two events a minute would have been due: the third minute without makes five.
        assert_eq!(cold.look(3, 3, FEW), Early::Open);
        assert_eq!(cold.look(4, 3, FEW), Early::Open);
        assert_eq!(cold.look(5, 3, FEW), Early::Gone);
        assert_eq!(cold.look(6, 3, bad(9.0)), Early::Counts);
        assert_eq!(cold.before(), [0.5]);
    }

    #[test]
    fn what_lasts_counts_at_the_first_interval_that_follows() {
        let mut cold = Cold::default();
        cold.raised(&[0.5]);
        for age in 0..3 {
            cold.look(age, 3, bad(3.0));
        }
        assert_eq!(cold.look(3, 3, bad(2.0)), Early::Counts);
    }

    #[test]
    fn what_was_wrong_before_the_raise_counts_at_once() {
        let raised_after = |before: f64| {
            let mut cold = Cold::default();
            cold.raised(&[0.5]);
            for age in 0..10 {
                cold.look(age, 3, if age < 3 { FEW } else { bad(before) });
            }
            cold.raised(&[0.9]);
            cold.look(0, 3, bad(3.0))
        };
        assert_eq!(raised_after(2.0), Early::Counts);
        // Warm tasks without a fault say nothing for it, and too few requests say nothing.
        assert_eq!(raised_after(0.0), Early::Open);
        let mut cold = Cold::default();
        cold.raised(&[0.5]);
        cold.look(3, 3, bad(2.0));
        cold.raised(&[0.9]);
        assert_eq!(cold.look(0, 3, bad(3.0)), Early::Open);
    }

    #[test]
    fn what_is_neither_borne_out_nor_gone_stays_open() {
        let mut cold = Cold::default();
        cold.raised(&[0.5]);
        for age in 0..3 {
            cold.look(age, 3, bad(4.0));
        }
        assert_eq!(cold.look(3, 3, bad(1.0)), Early::Open);
        assert_eq!(cold.look(4, 3, bad(1.0)), Early::Open);
        assert_eq!(cold.look(5, 3, bad(1.0)), Early::Open);
        assert_eq!(cold.look(6, 3, bad(1.0)), Early::Counts);
    }

    #[test]
    fn an_open_question_ends_by_itself() {
        let mut cold = Cold::default();
        cold.raised(&[0.5]);
        cold.look(0, 3, bad(1.0));
        assert_eq!(cold.look(5, 3, FEW), Early::Open);
        assert_eq!(cold.look(6, 3, FEW), Early::Counts);
        // Where nothing is ever cold, nothing is asked.
        assert_eq!(Cold::default().look(0, 0, bad(9.0)), Early::Counts);
    }
}
