//! Fills in the nodes of a template.

use super::{
    Value, functions,
    parse::{Call, Node, Operand, Pipeline},
};

/// The largest text that a template may give, in bytes.
const LARGEST: usize = 64 << 20;

/// Fills in a template.
pub fn fill(nodes: &[Node], data: &Value) -> Result<String, String> {
    let mut state = State { data, variables: Vec::new(), out: String::new() };
    state.nodes(nodes, data)?;
    Ok(state.out)
}

struct State<'a> {
    data: &'a Value,
    /// Names and values. A later one of the same name covers an earlier one.
    variables: Vec<(String, Value)>,
    out: String,
}

impl State<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        let known = self.variables.len();
        for node in nodes {
            self.node(node, dot)?;
        }
        self.variables.truncate(known);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), String> {
        if self.out.len() > LARGEST {
            return Err("its output is too large".into());
        }
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.out.push_str(&value.to_string());
            }
            Node::Set(name, pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.variables.push((name.clone(), value));
            }
            Node::If(condition, then, otherwise) => {
                let is = self.pipeline(condition, dot)?.is_true();
                self.nodes(if is { then } else { otherwise }, dot)?;
            }
            Node::With(condition, then, otherwise) => {
                let value = self.pipeline(condition, dot)?;
                match value.is_true() {
                    true => self.nodes(then, &value)?,
                    false => self.nodes(otherwise, dot)?,
                }
            }
            Node::Range(names, over, then, otherwise) => {
                let elements = elements(self.pipeline(over, dot)?)?;
                if elements.is_empty() {
                    return self.nodes(otherwise, dot);
                }
                for (key, value) in elements {
                    let known = self.variables.len();
                    match &names[..] {
                        [] => {}
                        [one] => self.variables.push((one.clone(), value.clone())),
                        [one, other, ..] => {
                            self.variables.push((one.clone(), key));
                            self.variables.push((other.clone(), value.clone()));
                        }
                    }
                    self.nodes(then, &value)?;
                    self.variables.truncate(known);
                }
            }
        }
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for call in pipeline {
            last = Some(self.call(call, last, dot)?);
        }
        last.ok_or_else(|| "there is nothing where a value is expected".into())
    }

    fn call(&self, Call(operands): &Call, last: Option<Value>, dot: &Value) -> Result<Value, String> {
        let Some((first, arguments)) = operands.split_first() else {
            return Err("there is nothing where a value is expected".into());
        };
        let Operand::Function(name) = first else {
            return match (arguments, last) {
                ([], None) => self.operand(first, dot),
                _ => Err("a value that is no function is given arguments".into()),
            };
        };
        let mut values = Vec::new();
        for argument in arguments {
            values.push(self.operand(argument, dot)?);
        }
        values.extend(last);
        functions::call(name, &values)
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let within = |value: Value, fields: &[String]| {
            fields.iter().try_fold(value, |value, field| value.field(field))
        };
        match operand {
            Operand::Text(text) => Ok(Value::Text(text.clone())),
            Operand::Number(number) => Ok(Value::Number(*number)),
            Operand::Bool(is) => Ok(Value::Bool(*is)),
            Operand::Nil => Ok(Value::None),
            Operand::Dot(fields) => within(dot.clone(), fields),
            Operand::Variable(name, fields) if name.is_empty() => within(self.data.clone(), fields),
            Operand::Variable(name, fields) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = found.ok_or_else(|| format!("the variable ${name} is not defined"))?;
                within(value.clone(), fields)
            }
            Operand::Function(name) => functions::call(name, &[]),
            Operand::Inner(pipeline, fields) => within(self.pipeline(pipeline, dot)?, fields),
        }
    }
}

/// The keys and values of what `range` goes through.
fn elements(value: Value) -> Result<Vec<(Value, Value)>, String> {
    match value {
        Value::List(items) => {
            Ok(items.into_iter().enumerate().map(|(at, item)| (Value::Number(at as i64), item)).collect())
        }
        Value::Map(entries) => {
            Ok(entries.into_iter().map(|(key, value)| (Value::Text(key), value)).collect())
        }
        Value::NoList | Value::NoMap | Value::None => Ok(Vec::new()),
        other => Err(format!("`range` cannot go through {}", other.kind())),
    }
}
