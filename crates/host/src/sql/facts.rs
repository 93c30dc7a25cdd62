//! From the tree of one statement to its facts.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use govrun_verdict::SqlFacts;
use sqlparser::ast::{
    Assignment, AssignmentTarget, ConflictTarget, Cte, Delete, Expr, FromTable, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, Ident, Insert, JoinConstraint, JoinOperator, ObjectName,
    ObjectNamePart, OnConflictAction, OnInsert, Query, Select, SelectItem, SetExpr, Statement, TableAlias,
    TableFactor, TableObject, TableWithJoins, Update, Visit, Visitor,
};

use super::Dialect;

/// The facts of one statement, or `None` when something in it is not understood.
pub(super) fn of(dialect: Dialect, statement: &Statement) -> Option<SqlFacts> {
    let mut walk = Walk::new(dialect);
    if statement.visit(&mut walk).is_break() {
        return None;
    }
    let class = walk.class()?;
    if !walk.rows.is_disjoint(&walk.columns) {
        walk.all_columns();
    }
    Some(SqlFacts {
        class: class.to_owned(),
        tables: walk.tables.into_iter().collect(),
        columns: walk.columns.into_iter().collect(),
        functions: walk.functions.into_iter().collect(),
    })
}

/// Something is not understood: the walk ends and there are no facts.
struct Unknown;

type Step = ControlFlow<Unknown>;

const ON: Step = ControlFlow::Continue(());
const STOP: Step = ControlFlow::Break(Unknown);

/// The names that one query's `WITH` has made so far.
struct Frame {
    // With the address of each definition, only ever compared.
    names: Vec<(String, *const Query)>,
    recursive: bool,
    visible: usize,
}

struct Walk {
    dialect: Dialect,
    tables: BTreeSet<String>,
    columns: BTreeSet<String>,
    functions: BTreeSet<String>,
    // What rows go by: in PostgreSQL such a name alone is the whole row.
    rows: BTreeSet<String>,
    writes: BTreeSet<&'static str>,
    into: bool,
    locks: bool,
    frames: Vec<Frame>,
}

impl Walk {
    fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            tables: BTreeSet::new(),
            columns: BTreeSet::new(),
            functions: BTreeSet::new(),
            rows: BTreeSet::new(),
            writes: BTreeSet::new(),
            into: false,
            locks: false,
            frames: Vec::new(),
        }
    }

    /// One word for what the statement does; more than one kind of change has none.
    fn class(&self) -> Option<&'static str> {
        let mut kinds: Vec<&'static str> = self.writes.iter().copied().collect();
        if self.into {
            kinds.push("select-into");
        }
        if self.locks {
            kinds.push("select-for-update");
        }
        match kinds.as_slice() {
            [] => Some("select"),
            [one] => Some(one),
            _ => None,
        }
    }

    /// A name as it is compared: unquoted names fold, and a quoted one must not depend on its case or spelling.
    fn name(&self, ident: &Ident) -> Option<String> {
        let text = &ident.value;
        let odd = |c: char| c.is_control() || matches!(c, '.' | '\\' | '"');
        if text.is_empty() || text.contains(odd) {
            return None;
        }
        let quoted = ident.quote_style.is_some();
        let cased = text.bytes().any(|b| b.is_ascii_uppercase());
        match self.dialect {
            // There "Users" is another table than users, and the facts could not tell them apart.
            Dialect::Postgres if quoted && cased => None,
            Dialect::Postgres | Dialect::Sqlite => Some(text.to_ascii_lowercase()),
        }
    }

    fn parts(&self, name: &ObjectName) -> Option<Vec<String>> {
        name.0
            .iter()
            .map(|part| match part {
                ObjectNamePart::Identifier(ident) => self.name(ident),
                ObjectNamePart::Function(_) => None,
            })
            .collect()
    }

    /// A table's name, without the schema that is meant where none is written.
    fn qualified(&self, name: &ObjectName) -> Option<String> {
        let parts = self.parts(name)?;
        let usual = match self.dialect {
            Dialect::Sqlite => "main",
            Dialect::Postgres => "public",
        };
        match parts.as_slice() {
            [table] => Some(table.clone()),
            [schema, table] if schema == usual => Some(table.clone()),
            [schema, table] => Some(format!("{schema}.{table}")),
            _ => None,
        }
    }

    /// Whether the name refers to something that the statement's own `WITH` made.
    fn is_own(&self, name: &ObjectName) -> bool {
        let Some(parts) = self.parts(name) else { return false };
        let [only] = parts.as_slice() else { return false };
        self.frames.iter().any(|f| f.names.iter().take(f.visible).any(|(made, _)| made == only))
    }

    fn table(&mut self, name: &ObjectName) -> Step {
        match self.qualified(name) {
            Some(table) => {
                self.tables.insert(table);
                ON
            }
            None => STOP,
        }
    }

    fn column(&mut self, ident: &Ident) -> Step {
        match self.name(ident) {
            Some(column) => {
                self.columns.insert(column);
                ON
            }
            None => STOP,
        }
    }

    fn last_column(&mut self, name: &ObjectName) -> Step {
        match name.0.last() {
            Some(ObjectNamePart::Identifier(ident)) => self.column(ident),
            Some(ObjectNamePart::Function(_)) | None => STOP,
        }
    }

    /// What a table goes by in the statement. Renamed columns could be any.
    fn row(&mut self, name: Option<&ObjectName>, alias: Option<&TableAlias>) -> Step {
        if let Some(alias) = alias {
            if name.is_some() && !alias.columns.is_empty() {
                self.all_columns();
            }
            let Some(name) = self.name(&alias.name) else { return STOP };
            self.rows.insert(name);
        } else if let Some(last) = name.and_then(|name| self.parts(name)?.pop()) {
            self.rows.insert(last);
        }
        ON
    }

    fn all_columns(&mut self) {
        self.columns.insert("*".to_owned());
    }

    fn function(&mut self, name: &ObjectName) -> Step {
        match self.parts(name).as_deref() {
            Some([schema, function]) if schema == "pg_catalog" => self.functions.insert(function.clone()),
            Some(parts) if parts.len() <= 2 => self.functions.insert(parts.join(".")),
            Some(_) | None => return STOP,
        };
        ON
    }

    fn items(&mut self, items: &[SelectItem]) {
        let all = |item: &SelectItem| match item {
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => true,
            SelectItem::UnnamedExpr(_)
            | SelectItem::ExprWithAlias { .. }
            | SelectItem::ExprWithAliases { .. } => false,
        };
        if items.iter().any(all) {
            self.all_columns();
        }
    }

    /// Columns that a join compares without writing them as an expression.
    fn joins(&mut self, tables: &[TableWithJoins]) -> Step {
        for join in tables.iter().flat_map(|table| &table.joins) {
            match constraint(&join.join_operator) {
                Some(JoinConstraint::On(_) | JoinConstraint::None) => {}
                Some(JoinConstraint::Natural) => self.all_columns(),
                Some(JoinConstraint::Using(columns) | JoinConstraint::UsingAlias(columns, _)) => {
                    for column in columns {
                        self.last_column(column)?;
                    }
                }
                None => return STOP,
            }
        }
        ON
    }

    fn assignments(&mut self, assignments: &[Assignment]) -> Step {
        for assignment in assignments {
            match &assignment.target {
                AssignmentTarget::ColumnName(column) => self.last_column(column)?,
                AssignmentTarget::Tuple(columns) => {
                    for column in columns {
                        self.last_column(column)?;
                    }
                }
            }
        }
        ON
    }

    fn insert(&mut self, insert: &Insert) -> Step {
        self.writes.insert("insert");
        // The target is a table even where a WITH has made its name.
        match &insert.table {
            TableObject::TableName(name) => self.table(name)?,
            _ => return STOP,
        }
        if insert.columns.is_empty() {
            self.all_columns();
        }
        for column in &insert.columns {
            self.last_column(column)?;
        }
        self.items(insert.returning.as_deref().unwrap_or_default());
        self.assignments(&insert.assignments)?;
        match &insert.on {
            None => ON,
            Some(OnInsert::OnConflict(conflict)) => {
                match &conflict.conflict_target {
                    Some(ConflictTarget::Columns { columns, .. }) => {
                        for column in columns {
                            self.column(column)?;
                        }
                    }
                    Some(ConflictTarget::OnConstraint(_)) => return STOP,
                    None => {}
                }
                match &conflict.action {
                    OnConflictAction::DoNothing => ON,
                    OnConflictAction::DoUpdate(update) => self.assignments(&update.assignments),
                }
            }
            Some(_) => STOP,
        }
    }

    fn update(&mut self, update: &Update) -> Step {
        self.writes.insert("update");
        self.target(std::slice::from_ref(&update.table))?;
        self.items(update.returning.as_deref().unwrap_or_default());
        self.assignments(&update.assignments)
    }

    fn delete(&mut self, delete: &Delete) -> Step {
        self.writes.insert("delete");
        if !delete.tables.is_empty() {
            return STOP;
        }
        let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
        self.target(tables)?;
        self.joins(delete.using.as_deref().unwrap_or_default())?;
        self.items(delete.returning.as_deref().unwrap_or_default());
        ON
    }

    /// What is changed is a table even where a WITH has made its name.
    fn target(&mut self, tables: &[TableWithJoins]) -> Step {
        self.joins(tables)?;
        for table in tables {
            match &table.relation {
                TableFactor::Table { name, .. } => self.table(name)?,
                _ => return STOP,
            }
        }
        ON
    }

    fn body(&mut self, body: &SetExpr) -> Step {
        match body {
            SetExpr::Select(_)
            | SetExpr::Query(_)
            | SetExpr::Values(_)
            | SetExpr::Insert(_)
            | SetExpr::Update(_)
            | SetExpr::Delete(_) => ON,
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left)?;
                self.body(right)
            }
            SetExpr::Merge(_) | SetExpr::Table(_) => STOP,
        }
    }

    fn frame(&self, query: &Query) -> Option<Frame> {
        let with = query.with.as_ref();
        let named = |cte: &Cte| Some((self.name(&cte.alias.name)?, std::ptr::from_ref(&*cte.query)));
        let names =
            with.map_or(&[][..], |w| w.cte_tables.as_slice()).iter().map(named).collect::<Option<_>>()?;
        Some(Frame { names, recursive: with.is_some_and(|w| w.recursive), visible: 0 })
    }
}

/// Whether whole rows are arguments: `f(t.*)`. The star of `count(*)` reads no column.
fn takes_rows(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    list.args.iter().any(|arg| {
        let (FunctionArg::Unnamed(arg)
        | FunctionArg::Named { arg, .. }
        | FunctionArg::ExprNamed { arg, .. }) = arg;
        match arg {
            FunctionArgExpr::Expr(_) => false,
            FunctionArgExpr::Wildcard => !function.name.to_string().eq_ignore_ascii_case("count"),
            _ => true,
        }
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the joins of other dialects are not understood")]
const fn constraint(join: &JoinOperator) -> Option<&JoinConstraint> {
    match join {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c)
        | JoinOperator::CrossJoin(c) => Some(c),
        _ => None,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "statements and terms that are not listed are not understood"
)]
impl Visitor for Walk {
    type Break = Unknown;

    fn pre_visit_statement(&mut self, statement: &Statement) -> Step {
        match statement {
            Statement::Query(_) => ON,
            Statement::Insert(insert) => self.insert(insert),
            Statement::Update(update) => self.update(update),
            Statement::Delete(delete) => self.delete(delete),
            _ => STOP,
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> Step {
        let foreign = query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty();
        if foreign {
            return STOP;
        }
        self.locks |= !query.locks.is_empty();
        // Inside a name's own definition only the names before it are visible, and itself where the WITH recurses.
        if let Some(outer) = self.frames.last_mut()
            && let Some(at) = outer.names.iter().position(|(_, made)| std::ptr::eq(*made, query))
        {
            outer.visible = at.saturating_add(usize::from(outer.recursive));
        }
        let Some(frame) = self.frame(query) else { return STOP };
        self.frames.push(frame);
        self.body(&query.body)
    }

    fn post_visit_query(&mut self, query: &Query) -> Step {
        self.frames.pop();
        if let Some(outer) = self.frames.last_mut()
            && let Some(at) = outer.names.iter().position(|(_, made)| std::ptr::eq(*made, query))
        {
            outer.visible = at.saturating_add(1);
        }
        ON
    }

    fn pre_visit_select(&mut self, select: &Select) -> Step {
        self.items(&select.projection);
        let foreign = select.top.is_some()
            || select.prewhere.is_some()
            || select.qualify.is_some()
            || select.value_table_mode.is_some()
            || select.exclude.is_some()
            || !select.lateral_views.is_empty()
            || !select.connect_by.is_empty();
        if foreign {
            return STOP;
        }
        if let Some(into) = &select.into {
            self.into = true;
            for target in &into.targets {
                match target {
                    Expr::Identifier(ident) => self.table(&ObjectName::from(vec![ident.clone()]))?,
                    Expr::CompoundIdentifier(parts) => self.table(&ObjectName::from(parts.clone()))?,
                    _ => return STOP,
                }
            }
        }
        self.joins(&select.from)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Step {
        match factor {
            TableFactor::Table { name, args: Some(_), alias, .. }
            | TableFactor::Function { name, alias, .. } => {
                self.row(None, alias.as_ref())?;
                self.function(name)
            }
            TableFactor::Table { json_path: Some(_), .. } | TableFactor::Table { version: Some(_), .. } => {
                STOP
            }
            TableFactor::Table { name, alias, .. } => self.row(Some(name), alias.as_ref()),
            TableFactor::Derived { alias, .. } | TableFactor::UNNEST { alias, .. } => {
                self.row(None, alias.as_ref())
            }
            TableFactor::NestedJoin { table_with_joins, .. } => {
                self.joins(std::slice::from_ref(&**table_with_joins))
            }
            _ => STOP,
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> Step {
        if self.is_own(relation) { ON } else { self.table(relation) }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Step {
        match expr {
            Expr::Identifier(ident) => self.column(ident),
            Expr::CompoundIdentifier(parts) => match parts.last() {
                Some(ident) => self.column(ident),
                None => STOP,
            },
            Expr::Function(function) => {
                if takes_rows(function) {
                    self.all_columns();
                }
                self.function(&function.name)
            }
            Expr::QualifiedWildcard(..) | Expr::Wildcard(_) => {
                self.all_columns();
                ON
            }
            Expr::CompoundFieldAccess { .. } => {
                self.all_columns();
                ON
            }
            Expr::Convert { .. }
            | Expr::Lambda(_)
            | Expr::MemberOf(_)
            | Expr::MatchAgainst { .. }
            | Expr::OuterJoin(_)
            | Expr::Prior(_)
            | Expr::Dictionary(_)
            | Expr::Map(_)
            | Expr::Struct { .. }
            | Expr::JsonAccess { .. } => STOP,
            _ => ON,
        }
    }
}
