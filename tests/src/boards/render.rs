//! From a board as it is written to Grafana's JSON. What Grafana takes for granted is left out, so that the JSON can be
//! read.

use serde_json::{Map, Value, json};

use super::{Board, Form, Names, Panel, Variable};

const COLUMNS: u64 = 24;
/// What the board's own link and others find it by.
const TAG: &str = "medledger";

pub(super) fn board(stem: &str, board: &Board, names: &Names) -> Value {
    let mut panels = Vec::new();
    let mut id = 0;
    let mut next = || {
        id += 1;
        id
    };
    let mut y = 0;
    for row in &board.row {
        let title = json!({
            "id": next(), "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        });
        panels.push(title);
        y += 1;
        let mut x = 0;
        for one in &row.panel {
            if x + one.width > COLUMNS {
                (x, y) = (0, y + row.height);
            }
            let mut json = panel(one, names);
            json["id"] = next().into();
            json["gridPos"] = json!({"x": x, "y": y, "w": one.width, "h": row.height});
            panels.push(json);
            x += one.width;
        }
        y += row.height;
    }
    json!({
        "uid": format!("{TAG}-{stem}"),
        "title": board.title,
        "description": board.about,
        "tags": [TAG],
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{
            "type": "dashboards", "title": "Medledger", "tags": [TAG], "asDropdown": true,
            "includeVars": true, "keepTime": true,
        }],
        "templating": {"list": variables(board)},
        "panels": panels,
    })
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn variables(board: &Board) -> Vec<Value> {
    let source = json!({
        "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1,
    });
    let others = board.variables.iter().map(|variable| {
        let (name, title, asked) = match variable {
            Variable::Namespace => (
                "namespace",
                "Namespace",
                "label_values(medledger_build_info, namespace)",
            ),
            Variable::Organisation => (
                "organisation",
                "Organisation",
                "label_values(medledger_build_info{namespace=~\"$namespace\"}, organisation)",
            ),
            Variable::Partition => (
                "partition",
                "Partition",
                "label_values(medledger_peer_height{namespace=~\"$namespace\"}, partition)",
            ),
        };
        let mut json = json!({
            "name": name, "label": title, "type": "query", "datasource": datasource(),
            "query": {"query": asked, "refId": name}, "definition": asked,
            "refresh": 2, "sort": 1, "multi": true, "includeAll": *variable != Variable::Namespace,
        });
        if *variable != Variable::Namespace {
            json["allValue"] = ".*".into();
            json["current"] = json!({"text": ["All"], "value": ["$__all"]});
        }
        json
    });
    std::iter::once(source).chain(others).collect()
}

/// Without its place.
fn panel(panel: &Panel, names: &Names) -> Value {
    let (kind, options) = form(panel);
    let mut json = json!({
        "type": kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": datasource(),
        "fieldConfig": {"defaults": defaults(panel), "overrides": overrides(panel, names)},
        "options": options,
        "targets": targets(panel),
    });
    if panel.form == Form::Table {
        json["transformations"] = transformations(panel);
    }
    json
}

fn form(panel: &Panel) -> (&'static str, Value) {
    let newest = json!({"calcs": ["lastNotNull"], "fields": "", "values": false});
    match panel.form {
        Form::Number => (
            "stat",
            json!({
                "reduceOptions": newest, "colorMode": "value", "textMode": "value",
                "graphMode": if panel.instant() { "none" } else { "area" },
            }),
        ),
        Form::Lines => (
            "timeseries",
            json!({
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
        ),
        Form::Bars => (
            "bargauge",
            json!({
                "reduceOptions": newest, "displayMode": "basic", "orientation": "horizontal", "showUnfilled": true,
            }),
        ),
        Form::Table => ("table", json!({"showHeader": true, "cellHeight": "sm"})),
    }
}

fn defaults(panel: &Panel) -> Value {
    // A quantile of nothing is no number.
    let idle = json!([{"type": "special", "options": {"match": "nan", "result": {"text": "–"}}}]);
    let mut json = json!({"unit": panel.unit, "noValue": "–", "mappings": idle});
    if panel.form == Form::Bars {
        json["min"] = 0.into();
    }
    if panel.unit == "none" || panel.unit.starts_with("suffix: blocks") {
        json["decimals"] = 0.into();
    }
    if panel.unit.ends_with("/s") {
        // Rates of rare events are far below one a second.
        json.as_object_mut().map(|fields| fields.remove("decimals"));
    }
    match panel.form {
        Form::Number | Form::Bars if panel.colours.is_empty() => {
            json["color"] = json!({"mode": "fixed", "fixedColor": "blue"});
        }
        Form::Number | Form::Bars => {
            json["color"] = json!({"mode": "thresholds"});
            json["thresholds"] = json!({"mode": "absolute", "steps": steps(panel)});
        }
        Form::Lines => {
            let mut custom = json!({
                "drawStyle": "line", "lineWidth": 1, "showPoints": "never", "fillOpacity": if panel.stack { 40 } else { 5 },
            });
            if panel.stack {
                custom["stacking"] = json!({"mode": "normal", "group": "A"});
            }
            if !panel.floating {
                custom["axisSoftMin"] = 0.into();
            }
            json["custom"] = custom;
        }
        Form::Table => {}
    }
    json
}

/// The first colour is also that of everything below.
fn steps(panel: &Panel) -> Vec<Value> {
    let steps = panel.colours.iter().enumerate();
    steps
        .map(|(i, (colour, from))| json!({"color": colour, "value": if i == 0 { Value::Null } else { json!(from) }}))
        .collect()
}

fn overrides(panel: &Panel, names: &Names) -> Vec<Value> {
    let of =
        |name: &str, properties: Value| json!({"matcher": {"id": "byName", "options": name}, "properties": properties});
    let mut all = Vec::new();
    if panel.form == Form::Lines {
        // Words that never came up are no news; they stay in the data.
        all.push(json!({
            "matcher": {"id": "byValue", "options": {"reducer": "allIsZero", "op": "gte", "value": 0}},
            "properties": [{"id": "custom.hideFrom", "value": {"legend": true, "tooltip": true, "viz": false}}],
        }));
    }
    for (column, unit) in &panel.units {
        all.push(of(column, json!([{"id": "unit", "value": unit}])));
    }
    for (what, table) in &panel.names {
        let Some(names) = names.get(table) else {
            panic!("{}: grafana/names.toml has no [{table}]", panel.title);
        };
        if panel.form == Form::Table {
            let mut values = Map::new();
            for (i, (value, name)) in names.iter().enumerate() {
                values.insert(value.clone(), json!({"text": name, "index": i}));
            }
            let mapped = json!([{"type": "value", "options": values}]);
            all.push(of(what, json!([{"id": "mappings", "value": mapped}])));
        } else {
            // A series is called as its label says.
            for (value, name) in names {
                all.push(of(value, json!([{"id": "displayName", "value": name}])));
            }
        }
    }
    all
}

fn targets(panel: &Panel) -> Vec<Value> {
    let letters = ('A'..='Z').map(String::from);
    let asks = panel.ask.iter().zip(letters);
    asks.map(|((legend, expr), letter)| {
        let mut target = json!({
            "refId": letter, "datasource": datasource(), "expr": expanded(expr), "legendFormat": legend,
            "instant": panel.instant(), "range": !panel.instant(),
        });
        if panel.form == Form::Table {
            target["format"] = "table".into();
        }
        target
    })
    .collect()
}

fn expanded(expr: &str) -> String {
    expr.replace("$published", "0 * max(medledger_report_period_end_seconds{$net} > 0)")
        .replace("$net", "namespace=~\"$namespace\"")
        .replace("$here", "namespace=~\"$namespace\", organisation=~\"$organisation\"")
        .replace("$rate", "[$__rate_interval]")
}

/// One line for each set of labels, columns in the order they are written.
fn transformations(panel: &Panel) -> Value {
    let value = |i: usize| match panel.ask.len() {
        1 => "Value".to_owned(),
        _ => format!("Value #{}", char::from(b'A' + i as u8)),
    };
    let labels = panel
        .columns
        .iter()
        .map(|(label, title)| (label.clone(), title.clone()));
    let values = panel
        .ask
        .iter()
        .enumerate()
        .map(|(i, (title, _))| (value(i), title.clone()));
    let (mut order, mut titles) = (Map::new(), Map::new());
    for (i, (column, title)) in labels.chain(values).enumerate() {
        order.insert(column.clone(), i.into());
        titles.insert(column, title.into());
    }
    json!([
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": true}, "indexByName": order, "renameByName": titles}},
    ])
}
