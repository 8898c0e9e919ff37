//! Which arm is which, by the words in names. Pure. Only whole words count, and
//! only those in which the two names differ.

use crate::model::ROLES;

/// What two names tell about the arms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// The names of both arms.
    Pair([&'static str; 2]),
    /// No word in them is about arms.
    Nothing,
    /// Some words are about arms, but not clearly.
    Doubt,
}

/// Tells two arms apart by all names that each of them has: of its target
/// group, and of its resource in the stack. Names that disagree are a doubt.
pub(super) fn tell(sources: &[[&str; 2]]) -> Told {
    let mut told = [vec![], vec![]];
    for names in sources {
        for (told, roles) in told.iter_mut().zip(roles(*names)) {
            told.extend(roles);
            told.sort_unstable();
            told.dedup();
        }
    }
    match [&told[0][..], &told[1][..]] {
        [[], []] => Told::Nothing,
        [[one], [other]]
            if one != other && ROLES.iter().any(|r| r.contains(one) && r.contains(other)) =>
        {
            Told::Pair([one, other])
        }
        _ => Told::Doubt,
    }
}

/// The words about arms in what remains of two names without their common
/// beginning and end.
fn roles([ours, theirs]: [&str; 2]) -> [Vec<&'static str>; 2] {
    let (ours, theirs) = (words(ours), words(theirs));
    let front = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
    let (ours, theirs) = (&ours[front..], &theirs[front..]);
    let back = ours.iter().rev().zip(theirs.iter().rev());
    let back = back.take_while(|(a, b)| a == b).count();
    [ours, theirs].map(|words| {
        let own = &words[..words.len() - back];
        let all = ROLES.iter().flatten().copied();
        all.filter(|role| own.iter().any(|w| w == role)).collect()
    })
}

/// The words of a name: `app-Blue_2` and `AppBlue2` have `app`, `blue`, `2`.
pub(super) fn words(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.chars().collect();
    let mut words = vec![];
    let mut word = String::new();
    for (index, letter) in letters.iter().enumerate() {
        if !letter.is_alphanumeric() {
            words.push(std::mem::take(&mut word));
            continue;
        }
        let before = index.checked_sub(1).and_then(|i| letters.get(i));
        let after = letters.get(index + 1);
        let begins = before.is_some_and(|before| {
            let other_kind = before.is_alphabetic() != letter.is_alphabetic();
            let hump = before.is_lowercase() && letter.is_uppercase();
            // The last of several capitals begins the next word: `TGBlue`.
            let last = before.is_uppercase()
                && letter.is_uppercase()
                && after.is_some_and(|a| a.is_lowercase());
            other_kind || hump || last
        });
        if begins {
            words.push(std::mem::take(&mut word));
        }
        word.extend(letter.to_lowercase());
    }
    words.push(word);
    words.retain(|w| !w.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_words() {
        let split = |name| words(name).join(" ");
        assert_eq!(split("app-blue_tg.2"), "app blue tg 2");
        assert_eq!(split("BlueTargetGroup"), "blue target group");
        assert_eq!(split("ALBGreenTG"), "alb green tg");
        assert_eq!(split("tg-GREEN"), "tg green");
        assert_eq!(split("blue2"), "blue 2");
        assert_eq!(split("--"), "");
    }

    #[test]
    fn whole_words_that_differ_tell_arms_apart() {
        for (ours, theirs, pair) in [
            ("demo-stable-tg", "demo-canary-tg", ["stable", "canary"]),
            (
                "canary-api-stable",
                "canary-api-canary",
                ["stable", "canary"],
            ),
            (
                "canary-api-canary",
                "canary-api-stable",
                ["canary", "stable"],
            ),
            ("greenhouse-blue", "greenhouse-green", ["blue", "green"]),
            ("blue-team-stable", "blue-team-canary", ["stable", "canary"]),
            (
                "stable-blue-stable",
                "stable-green-stable",
                ["blue", "green"],
            ),
            ("canary-canary", "canary-stable", ["canary", "stable"]),
            (
                "canary-demo-Canary",
                "canary-demo-Stable",
                ["canary", "stable"],
            ),
            ("GreenBayBlueTG", "GreenBayGreenTG", ["blue", "green"]),
            ("x-Stable-1AB2", "x-Canary-9ZY8", ["stable", "canary"]),
            ("unstable-blue", "unstable-green", ["blue", "green"]),
            (
                "evergreen-stable-2",
                "evergreen-canary-3",
                ["stable", "canary"],
            ),
        ] {
            assert_eq!(tell(&[[ours, theirs]]), Told::Pair(pair), "{ours} {theirs}");
        }
        for (ours, theirs) in [
            ("left", "right"),
            ("tg-1", "tg-2"),
            ("stable-diffusion-a", "stable-diffusion-b"),
            ("unstable-x", "bluegreen-x"),
            ("greenhouse-a", "bluebird-a"),
        ] {
            assert_eq!(tell(&[[ours, theirs]]), Told::Nothing, "{ours} {theirs}");
        }
    }

    #[test]
    fn half_a_word_is_a_doubt() {
        for (ours, theirs) in [
            ("prod-canary", "prod"),
            ("app-green", "app-stable"),
            ("unstable-x", "stable-x"),
            ("canary-canary", "canary"),
            ("blue-api-stable", "green-api-canary"),
            ("stable-to-canary", "canary-to-stable"),
            ("app-blue", "app-v2"),
            ("stable-blue", "canary"),
        ] {
            assert_eq!(tell(&[[ours, theirs]]), Told::Doubt, "{ours} {theirs}");
            assert_eq!(tell(&[[theirs, ours]]), Told::Doubt, "{theirs} {ours}");
        }
        // The stack and the groups disagree.
        let groups = ["app-stable", "app-canary"];
        let told = |in_stack| tell(&[groups, in_stack]);
        assert_eq!(told(["CanaryGroup", "StableGroup"]), Told::Doubt);
        assert_eq!(
            told(["StableGroup", "CanaryGroup"]),
            Told::Pair(["stable", "canary"])
        );
        assert_eq!(told(["", ""]), Told::Pair(["stable", "canary"]));
        assert_eq!(
            tell(&[["tg-1", "tg-2"], ["Blue", "Green"]]),
            Told::Pair(["blue", "green"])
        );
    }
}
