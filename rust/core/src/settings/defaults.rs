//! The defaults of parameters: the parameter table of the Python package, compiled in.
//!
//! A row of the table has tabs between its columns: name, kind, default, one line of documentation, and sometimes the
//! effect of a parameter that no program reads. The texts of defaults are expanded as in main.cf (postconf(5)).

use super::Source;
use crate::lookup::Maps;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::LazyLock;

macro_rules! tables {
    ($($family:literal)*) => {
        [$(include_str!(concat!("../../../../python/postillion/config/table/", $family, ".tsv"))),*]
    };
}
const TABLES: [&str; 13] = tables!(
    "address" "cleanup" "delivery" "queue" "smtpd" "smtpd_restrictions" "smtpd_tls" "smtp" "lmtp" "tls" "tlsproxy"
    "postscreen" "system"
);
const TEMPLATES: &str = include_str!("../../../../python/postillion/config/table/transport.tsv");
/// Maximum nesting of references in a default.
const DEPTH_MAX: usize = 10;
/// Prefix of a default that a program computes, most of them from the host.
const COMPUTED: &str = "computed:";
/// Prefix of the names in the table of the transports' parameters. Here these names begin with `_`.
const TRANSPORT: &str = "transport";

/// The defaults by name, unexpanded.
static DEFAULTS: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    let row = |line: &'static str| {
        let mut columns = line.split('\t');
        Some((columns.next()?, columns.nth(1)?))
    };
    let of_all = TABLES.iter().flat_map(|table| table.lines()).filter_map(row);
    let of_transports = TEMPLATES.lines().filter_map(row);
    let of_transports = of_transports.filter_map(|(name, default)| Some((name.strip_prefix(TRANSPORT)?, default)));
    of_all.chain(of_transports).collect()
});

/// The values of a system with an empty main.cf, on a host called `localhost`.
pub struct Defaults;

/// Return the result of `reader` with the defaults as its source.
///
/// # Panics
///
/// If the table has no such parameter, or a default of another type.
pub fn read<T>(reader: impl FnOnce(&Defaults) -> Result<T, String>) -> T {
    reader(&Defaults).unwrap_or_else(|problem| panic!("parameter table: {problem}"))
}

impl Defaults {
    fn value(name: &str, depth: usize) -> Result<String, String> {
        let default = DEFAULTS.get(name).ok_or_else(|| format!("no parameter is called {name}"))?;
        match default.strip_prefix(COMPUTED) {
            Some("myhostname") => Ok("localhost".into()),
            Some("mydomain") => Ok("localdomain".into()),
            Some(_) => Err(format!("{name} depends on the host")),
            None => expand(default, depth),
        }
    }
}

impl Source for Defaults {
    type Error = String;

    fn text(&self, name: &str) -> Result<String, String> {
        Self::value(name, 0)
    }

    fn number(&self, name: &str) -> Result<i64, String> {
        let text = self.text(name)?;
        text.parse().map_err(|_| self.bad(name, &text, "give a whole number"))
    }

    fn seconds(&self, name: &str) -> Result<f64, String> {
        let text = self.text(name)?;
        let unit = |letter| {
            [('s', 1.0), ('m', 60.0), ('h', 3600.0), ('d', 86_400.0), ('w', 604_800.0)]
                .into_iter()
                .find_map(|(name, unit_s)| (name == letter).then_some(unit_s))
        };
        let seconds = text.char_indices().next_back().and_then(|(last, letter)| {
            let (count, unit_s) = unit(letter).map_or((&*text, 1.0), |unit_s| (&text[..last], unit_s));
            Some(f64::from(count.parse::<u32>().ok()?) * unit_s)
        });
        seconds.ok_or_else(|| self.bad(name, &text, "give a time"))
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        match &*self.text(name)? {
            "yes" => Ok(true),
            "no" => Ok(false),
            text => Err(self.bad(name, text, "give yes or no")),
        }
    }

    /// Return the words between commas and blanks. A word in braces keeps its commas and blanks.
    fn items(&self, name: &str) -> Result<Vec<String>, String> {
        let (mut words, mut word, mut depth) = (Vec::new(), String::new(), 0usize);
        for c in self.text(name)?.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && (c == ',' || c.is_ascii_whitespace()) {
                words.push(std::mem::take(&mut word));
            } else {
                word.push(c);
            }
        }
        words.push(word);
        words.retain(|word| !word.is_empty());
        Ok(words)
    }

    /// Return no tables: a default with tables depends on the host.
    fn maps(&self, name: &str) -> Result<Maps, String> {
        let words = self.items(name)?;
        if words.is_empty() { Ok(Maps::default()) } else { Err(self.bad(name, &words.join(" "), "give no table")) }
    }

    fn table(&self, name: &str, word: &str) -> Result<Maps, String> {
        Err(self.bad(name, word, "give no table"))
    }

    fn bad(&self, name: &str, value: &str, fix: &str) -> String {
        format!("bad value \"{value}\" for {name}: {fix}")
    }
}

/// Return a text with its references expanded: `$name`, `${name}`, `${name?{text}:{text}}` and `${{left} <operator {right} ? {text} : {text}}`.
fn expand(text: &str, depth: usize) -> Result<String, String> {
    if depth > DEPTH_MAX {
        return Err(format!("{text} is nested too deeply"));
    }
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((plain, after)) = rest.split_once('$') {
        expanded.push_str(plain);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if after.starts_with('{') {
            let (inside, behind) = braces(after)?;
            expanded.push_str(&expression(inside, depth + 1)?);
            rest = behind;
        } else {
            let (name, behind) = name(after);
            expanded.push_str(&Defaults::value(name, depth + 1)?);
            rest = behind;
        }
    }
    Ok(expanded + rest)
}

fn expression(inside: &str, depth: usize) -> Result<String, String> {
    let (holds, choices) = if inside.starts_with('{') {
        let (left, after) = braces(inside)?;
        let (operator, after) =
            after.trim_start().split_once(['{']).ok_or_else(|| format!("no operand in {inside}"))?;
        let (right, choices) = braces(&inside[inside.len() - after.len() - 1..])?;
        let order = compare(&expand(left, depth)?, &expand(right, depth)?);
        (holds(operator.trim(), order).ok_or_else(|| format!("unknown operator in {inside}"))?, choices)
    } else {
        let (name, choices) = name(inside);
        let value = Defaults::value(name, depth)?;
        if choices.is_empty() {
            return Ok(value);
        }
        (!value.is_empty(), choices)
    };
    let choices = choices.trim_start();
    let (if_true, if_false) = if let Some(after) = choices.strip_prefix('?') {
        let (if_true, after) = operand(after)?;
        let if_false = after.trim_start().strip_prefix(':').map(operand).transpose()?;
        (if_true, if_false.map_or("", |(if_false, _)| if_false))
    } else if let Some(after) = choices.strip_prefix(':') {
        ("", operand(after)?.0)
    } else {
        return Err(format!("neither ? nor : in {inside}"));
    };
    expand(if holds { if_true } else { if_false }, depth)
}

/// Split `text` behind its operand: a text in braces, or all of it.
fn operand(text: &str) -> Result<(&str, &str), String> {
    let start = text.trim_start();
    if start.starts_with('{') { braces(start) } else { Ok((text, "")) }
}

/// Return the inside and the rest of `{inside}rest`.
fn braces(text: &str) -> Result<(&str, &str), String> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok((&text[1..at], &text[at + 1..]));
        }
    }
    Err(format!("no closing brace in {text}"))
}

/// Return the name at the start of a text, and the rest.
fn name(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len()))
}

/// Compare two compatibility levels such as `3.6`, part by part.
fn compare(left: &str, right: &str) -> Ordering {
    let parts = |level: &str| level.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
    parts(left).cmp(&parts(right))
}

fn holds(operator: &str, order: Ordering) -> Option<bool> {
    match operator {
        "<level" => Some(order.is_lt()),
        ">=level" => Some(order.is_ge()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_can_be_expanded() {
        // These are templates, which their programs expand, or depend on the host.
        const NOT_TEXT: [&str; 3] = ["forward_path", "default_rbl_reply", "smtp_requiretls_policy"];
        let mut count = 0;
        for line in TABLES.iter().flat_map(|table| table.lines()).filter(|line| !line.starts_with('#')) {
            let columns: Vec<&str> = line.split('\t').collect();
            let host = Defaults.text(columns[0]).is_err_and(|problem| problem.ends_with("depends on the host"));
            if columns[1] != "raw" && !NOT_TEXT.contains(&columns[0]) && !host {
                assert_eq!(Defaults.text(columns[0]).err(), None, "{line}");
                count += 1;
            }
        }
        assert!(count > 850, "{count}");
    }

    #[test]
    fn defaults_have_types() {
        assert_eq!(Defaults.number("smtpd_hard_error_limit"), Ok(20));
        assert_eq!(Defaults.seconds("maximal_queue_lifetime"), Ok(432_000.0));
        assert_eq!(Defaults.flag("append_dot_mydomain"), Ok(true));
        assert_eq!(Defaults.items("message_drop_headers").unwrap().len(), 4);
        assert_eq!(Defaults.text("smtpd_banner"), Ok("localhost ESMTP Postfix".into()));
        assert_eq!(Defaults.number("_destination_concurrency_limit"), Ok(20));
        assert_eq!(Defaults.text("no_such_parameter"), Err("no parameter is called no_such_parameter".into()));
        let problem = Defaults.number("smtpd_banner").unwrap_err();
        assert_eq!(problem, "bad value \"localhost ESMTP Postfix\" for smtpd_banner: give a whole number");
    }

    #[test]
    fn expressions_are_expanded_as_in_main_cf() {
        for (text, expanded) in [
            ("a$${b}", "a${b}"),
            ("${stress?{1}:{20}}s", "20s"),
            ("${mail_name?is $mail_name}", "is Postfix"),
            ("${stress:none}", "none"),
            ("${{$compatibility_level} <level {3.6} ? {md5} : {sha256}}", "md5"),
            ("${{3.10} >=level {3.6} ? {new} : {old}}", "new"),
        ] {
            assert_eq!(expand(text, 0).unwrap(), expanded, "{text}");
        }
        for text in ["${stress", "${{1} !level {2} ? {a} : {b}}", "${stress!}"] {
            assert!(expand(text, 0).is_err(), "{text}");
        }
    }
}
