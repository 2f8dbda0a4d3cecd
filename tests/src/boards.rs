//! Grafana's dashboards: people write `grafana/boards/*.toml`, Grafana reads `grafana/dashboards/*.json`.
//!
//! ```text
//! grafana/boards/peer.toml ─┐
//! grafana/names.toml ───────┼── [`dashboards`] ──► grafana/dashboards/peer.json ──► [`queries`]: what each panel asks
//! the contract's codes ─────┘
//! ```
//! In an expression `$net` stands for the network's namespaces, `$here` for these and the chosen organisations, `$rate`
//! for the range that fits scrapes and zoom, `$published` for 0 once the ministry has published a period, and nothing
//! before.

mod promql;
mod render;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

pub use promql::{Selector, by, ranges, selectors};

/// A board as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Board {
    title: String,
    about: String,
    variables: Vec<Variable>,
    row: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Variable {
    Namespace,
    Organisation,
    Partition,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    title: String,
    /// Of each of its panels, in Grafana's units.
    height: u64,
    panel: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Panel {
    form: Form,
    /// Of the 24 columns.
    width: u64,
    title: String,
    about: String,
    unit: String,
    /// Legend, or a table's column, and expression.
    ask: Vec<(String, String)>,
    /// A table's columns of labels: label and title.
    #[serde(default)]
    columns: Vec<(String, String)>,
    /// By column or label: which table of `names.toml` says what its values are called.
    #[serde(default)]
    names: BTreeMap<String, String>,
    /// Of a table's columns that have another one.
    #[serde(default)]
    units: BTreeMap<String, String>,
    /// Colour, and from which value on.
    #[serde(default)]
    colours: Vec<(String, f64)>,
    /// Lines on each other.
    #[serde(default)]
    stack: bool,
    /// The axis need not begin at zero.
    #[serde(default)]
    floating: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    /// One value, large.
    Number,
    /// Values over time.
    Lines,
    /// A bar for each value of now.
    Bars,
    Table,
}

impl Panel {
    /// Of now, not over time.
    fn instant(&self) -> bool {
        let of_range = self.ask.iter().any(|(_, expr)| expr.contains("[$__range]"));
        matches!(self.form, Form::Bars | Form::Table) || of_range
    }
}

/// What values are called, by table.
type Names = BTreeMap<String, BTreeMap<String, String>>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../grafana")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Files of a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn parse<T: serde::de::DeserializeOwned>(file: &Path) -> T {
    toml::from_str(&read(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Items are called as in the newest list of codes that the contract has.
fn names() -> Names {
    #[derive(Deserialize)]
    struct Codes {
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        code: String,
        name: String,
    }
    let mut names: Names = parse(&folder().join("names.toml"));
    let lists = files(&folder().join("../chaincode/medical-records/codes"));
    let newest = read(lists.last().expect("a list of codes"));
    let codes: Codes = serde_json::from_str(&newest).expect("a list of codes");
    let items = codes.items.into_iter().map(|item| (item.code, item.name));
    names.insert("item".to_owned(), items.collect());
    names
}

/// What every file in `grafana/dashboards` should hold.
pub fn dashboards() -> BTreeMap<PathBuf, String> {
    let names = names();
    let sources = files(&folder().join("boards"));
    let made = sources.iter().map(|source| {
        let board: Board = parse(source);
        let stem = source.file_stem().expect("a name").to_string_lossy().into_owned();
        let json = render::board(&stem, &board, &names);
        let text = serde_json::to_string_pretty(&json).expect("JSON") + "\n";
        (folder().join("dashboards").join(format!("{stem}.json")), text)
    });
    made.collect()
}

/// The dashboards that are there, by file.
pub fn found() -> BTreeMap<PathBuf, String> {
    let files = files(&folder().join("dashboards"));
    files.into_iter().map(|file| (file.clone(), read(&file))).collect()
}

/// Every dashboard as Grafana reads it.
pub fn boards() -> Vec<Value> {
    let made = dashboards().into_values();
    made.map(|text| serde_json::from_str(&text).expect("JSON")).collect()
}

/// One query of a panel, as Grafana sends it but for the variables.
#[derive(Clone, Debug)]
pub struct Query {
    /// The dashboard's uid.
    pub board: String,
    pub panel: String,
    pub expr: String,
    pub legend: String,
    pub instant: bool,
}

/// Panels of a dashboard, without the rows' titles.
pub fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    let all = board["panels"].as_array().expect("panels");
    all.iter().filter(|panel| panel["type"] != "row")
}

/// Everything that a dashboard asks.
pub fn queries(board: &Value) -> Vec<Query> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of_panel = panels(board).flat_map(|panel| {
        let targets = panel["targets"].as_array().expect("targets").iter();
        targets.map(|target| Query {
            board: text(&board["uid"]),
            panel: text(&panel["title"]),
            expr: text(&target["expr"]),
            legend: text(&target["legendFormat"]),
            instant: target["instant"] == true,
        })
    });
    of_panel.collect()
}

/// With everything chosen, as for a network that is scraped every second.
pub fn substituted(expr: &str, namespace: &str, range_s: u64) -> String {
    expr.replace("$namespace", namespace)
        .replace("$organisation", ".*")
        .replace("$partition", ".*")
        .replace("$__rate_interval", "10s")
        .replace("$__range", &format!("{range_s}s"))
}
