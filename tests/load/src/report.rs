//! What a run found: one table for people, one file for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::machine::Machine;

/// Everything a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) at: String,
    pub(crate) command: String,
    pub(crate) machine: Machine,
    /// Which binary of Schoolgate was measured.
    pub(crate) binary: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) notes: Vec<String>,
    /// A picture of some of it, SVG.
    #[serde(skip)]
    pub(crate) picture: Option<String>,
}

/// One figure, for each server that has it.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    /// Median over rounds, by server.
    pub(crate) values: BTreeMap<String, f64>,
    /// Median of the rounds' ratios: of which server, to which peer.
    pub(crate) ratios: BTreeMap<String, BTreeMap<String, f64>>,
    /// Every round, by server.
    pub(crate) rounds: BTreeMap<String, Vec<f64>>,
}

/// The figures of several rounds.
#[derive(Debug, Default)]
pub(crate) struct Rounds(BTreeMap<String, Vec<f64>>);

impl Rounds {
    pub(crate) fn add(&mut self, server: &str, value: f64) {
        self.0.entry(server.to_owned()).or_default().push(value);
    }

    pub(crate) fn into_row(self, scenario: &'static str, what: &str, unit: &'static str) -> Row {
        let values = self.0.iter().map(|(server, values)| (server.clone(), median(values))).collect();
        let mut ratios: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
        for (server, mine) in &self.0 {
            for (peer, theirs) in self.0.iter().filter(|(peer, _)| *peer != server) {
                let each: Vec<f64> = mine.iter().zip(theirs).map(|(mine, theirs)| mine / theirs).collect();
                ratios.entry(server.clone()).or_default().insert(peer.clone(), median(&each));
            }
        }
        Row { scenario, what: what.to_owned(), unit, values, ratios, rounds: self.0 }
    }
}

/// The middle value; of an even number, the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (n, middle) if n % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        (_, middle) => sorted[middle],
    }
}

/// The value that this share of the values does not exceed.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a length"
    )]
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

impl Report {
    pub(crate) fn push(&mut self, row: Row) {
        eprintln!("  {}: {}", row.what, values(&row));
        self.rows.push(row);
    }

    /// One figure of Schoolgate alone.
    pub(crate) fn single(&mut self, scenario: &'static str, what: &str, unit: &'static str, value: f64) {
        let mut rounds = Rounds::default();
        rounds.add(ALONE, value);
        self.push(rounds.into_row(scenario, what, unit));
    }

    pub(crate) fn note(&mut self, note: String) {
        eprintln!("  note: {note}");
        self.notes.push(note);
    }

    pub(crate) fn markdown(&self) -> String {
        let m = &self.machine;
        let mut text = format!(
            "# Load figures, {}\n\n- `{}`\n- Schoolgate {} ({}, {}), {}, {}\n- {}, {} cores, {} GiB, {}; load average before the run {}\n- {}, {}\n\n",
            self.at,
            self.command,
            m.commit,
            self.binary,
            m.rustc,
            m.nginx,
            m.haproxy,
            m.cpu,
            m.cores,
            m.memory_gib,
            m.kernel,
            m.load_before,
            m.wrk,
            m.h2load
        );
        let (compared, alone): (Vec<_>, Vec<_>) = self.rows.iter().partition(|row| !row.values.contains_key(ALONE));
        for rows in compared.chunk_by(|a, b| peers_and_ours(a).eq(peers_and_ours(b))) {
            text.push_str(&compared_table(rows));
            text.push('\n');
        }
        if !alone.is_empty() {
            text.push_str("| Schoolgate | | |\n|---|---:|---|\n");
            for row in alone {
                let _ = writeln!(text, "| {} | {} | {} |", row.what, number(row.values[ALONE]), row.unit);
            }
        }
        for note in &self.notes {
            let _ = write!(text, "\n- {note}");
        }
        text.push('\n');
        text
    }

    /// Writes `{dir}/{name}.md` and `.json`, and `.svg` when there is a picture.
    pub(crate) fn write(&self, dir: &Path, name: &str) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        std::fs::write(dir.join(format!("{name}.md")), self.markdown())?;
        std::fs::write(dir.join(format!("{name}.json")), serde_json::to_string_pretty(self)? + "\n")?;
        if let Some(picture) = &self.picture {
            std::fs::write(dir.join(format!("{name}.svg")), picture)?;
        }
        Ok(())
    }
}

/// The "server" of figures that have no peer.
const ALONE: &str = "alone";

/// The backend itself is in the table, but nobody's peer.
pub(crate) const DIRECT: &str = "origin";

fn peers_and_ours(row: &Row) -> impl Iterator<Item = &String> {
    row.values.keys().filter(|server| *server != DIRECT)
}

fn compared_table(rows: &[&Row]) -> String {
    let mut servers: Vec<&String> = rows.iter().flat_map(|row| row.values.keys()).collect();
    servers.sort_by_key(|server| (server.starts_with("schoolgate"), server.len(), server.as_str()));
    servers.dedup();
    let (ours, peers): (Vec<&String>, Vec<&String>) =
        servers.iter().filter(|server| **server != DIRECT).partition(|server| server.starts_with("schoolgate"));
    let mut text = String::from("| | unit |");
    let columns = servers.len() + ours.len() * peers.len();
    for server in &servers {
        let _ = write!(text, " {server} |");
    }
    for (our, peer) in ours.iter().flat_map(|our| peers.iter().map(move |peer| (our, peer))) {
        let _ = write!(text, " {our} ÷ {peer} |");
    }
    let _ = write!(text, "\n|---|---|{}\n", "---:|".repeat(columns));
    for row in rows {
        let _ = write!(text, "| {} | {} |", row.what, row.unit);
        for server in &servers {
            let _ = write!(text, " {} |", row.values.get(*server).map_or_else(String::new, |value| number(*value)));
        }
        for (our, peer) in ours.iter().flat_map(|our| peers.iter().map(move |peer| (our, peer))) {
            let ratio = row.ratios.get(*our).and_then(|ratios| ratios.get(*peer));
            let _ = write!(text, " {} |", ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
        }
        text.push('\n');
    }
    text
}

fn values(row: &Row) -> String {
    let each: Vec<_> = row.values.iter().map(|(server, value)| format!("{server} {}", number(*value))).collect();
    format!("{} {}", each.join(", "), row.unit)
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (i, digit) in digits.chars().enumerate() {
                if i > 0 && (digits.len() - i).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios() {
        let mut rounds = Rounds::default();
        for (ours, theirs) in [(1.0, 2.0), (3.0, 3.0), (4.0, 2.0)] {
            rounds.add("schoolgate", ours);
            rounds.add("nginx", theirs);
        }
        let row = rounds.into_row("h1", "requests", "1/s");
        assert_eq!((row.values["schoolgate"], row.ratios["schoolgate"]["nginx"]), (3.0, 1.0));
    }

    #[test]
    fn quantiles_and_numbers() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99), quantile(&[7.0], 0.99)), (50.0, 99.0, 7.0));
        assert_eq!((number(1_234_567.0).as_str(), number(12.34).as_str()), ("1,234,567", "12.3"));
    }
}
