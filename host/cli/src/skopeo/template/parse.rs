//! A template's text → its nodes.

/// A part of a template.
#[derive(Debug, PartialEq)]
pub enum Node {
    Text(String),
    Print(Pipeline),
    /// `$name := pipeline` or `$name = pipeline`.
    Set(String, Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    /// The names of the variables for the key and the value of each element.
    Range(Vec<String>, Pipeline, Vec<Node>, Vec<Node>),
}

/// Commands of which each gets the value of the one before as its last argument.
pub type Pipeline = Vec<Call>;

/// A function with its arguments, or one value.
#[derive(Debug, PartialEq)]
pub struct Call(pub Vec<Operand>);

/// A value, and the fields of it that are asked for.
#[derive(Debug, PartialEq)]
pub enum Operand {
    Text(String),
    Number(i64),
    Bool(bool),
    Nil,
    /// The value that the template is at, with fields.
    Dot(Vec<String>),
    /// A variable with fields. The empty name is the whole data.
    Variable(String, Vec<String>),
    Function(String),
    Inner(Pipeline, Vec<String>),
}

/// How deeply blocks and parentheses may be nested.
const NESTING: usize = 64;

/// Actions of Go's templates that are refused.
const REFUSED: [&str; 5] = ["define", "template", "block", "break", "continue"];

/// Splits a template into texts and actions, and nests the blocks.
pub fn parse(template: &str) -> Result<Vec<Node>, String> {
    let mut pieces = pieces(template)?.into_iter().peekable();
    let (nodes, ended) = block(&mut pieces, 0)?;
    match ended {
        None => Ok(nodes),
        Some(word) => Err(format!("there is `{word}` without a block before it")),
    }
}

/// A text, or the words of an action.
enum Piece {
    Text(String),
    Action(Vec<Token>),
}

fn pieces(template: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut rest, mut trims) = (Vec::new(), template, false);
    loop {
        let (text, behind) = match rest.split_once("{{") {
            Some((text, behind)) => (text, Some(behind)),
            None => (rest, None),
        };
        let mut text = if trims { text.trim_start() } else { text };
        let Some(behind) = behind else {
            pieces.push(Piece::Text(text.to_owned()));
            return Ok(pieces);
        };
        // `{{- ` takes away the space before it, and ` -}}` that behind it.
        let inner = match behind.strip_prefix('-').filter(|inner| inner.starts_with(char::is_whitespace)) {
            Some(inner) => {
                text = text.trim_end();
                inner
            }
            None => behind,
        };
        pieces.push(Piece::Text(text.to_owned()));
        if let Some(comment) = inner.trim_start().strip_prefix("/*") {
            let (_, behind) = comment.split_once("*/").ok_or("a comment is not closed")?;
            let behind = behind.trim_start();
            trims = behind.starts_with('-');
            rest = behind
                .trim_start_matches('-')
                .strip_prefix("}}")
                .ok_or("a comment is not the whole action")?;
            continue;
        }
        let (tokens, behind, trimmed) = tokens(inner)?;
        pieces.push(Piece::Action(tokens));
        (rest, trims) = (behind, trimmed);
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Variable(String),
    /// `.` with the fields behind it.
    Fields(Vec<String>),
    Text(String),
    Number(i64),
    Pipe,
    Comma,
    Declare,
    Assign,
    Open,
    /// A closing parenthesis with the fields behind it.
    Close(Vec<String>),
}

/// The tokens up to the end of the action, the text behind it, and whether it is trimmed.
fn tokens(text: &str) -> Result<(Vec<Token>, &str, bool), String> {
    let (mut tokens, mut rest) = (Vec::new(), text);
    loop {
        let spaced = rest.starts_with(char::is_whitespace);
        rest = rest.trim_start();
        if let Some(behind) = rest.strip_prefix("}}") {
            return Ok((tokens, behind, false));
        }
        if let Some(behind) = rest.strip_prefix("-}}").filter(|_| spaced) {
            return Ok((tokens, behind, true));
        }
        let first = rest.chars().next().ok_or("an action begins with {{, and it is not closed")?;
        let end_of = |text: &str, good: fn(char) -> bool| text.find(|next| !good(next)).unwrap_or(text.len());
        let is_name = |next: char| next.is_alphanumeric() || next == '_';
        let (token, behind) = match first {
            '|' => (Token::Pipe, &rest[1..]),
            ',' => (Token::Comma, &rest[1..]),
            '(' => (Token::Open, &rest[1..]),
            ')' => {
                let (fields, behind) = fields(&rest[1..]);
                (Token::Close(fields), behind)
            }
            ':' if rest.starts_with(":=") => (Token::Declare, &rest[2..]),
            '=' => (Token::Assign, &rest[1..]),
            '"' => quoted(rest)?,
            '`' => {
                let (text, behind) = rest[1..].split_once('`').ok_or("a text in ` is not closed")?;
                (Token::Text(text.to_owned()), behind)
            }
            '$' => {
                let end = 1 + end_of(&rest[1..], is_name);
                let (fields, behind) = fields(&rest[end..]);
                tokens.push(Token::Variable(rest[1..end].to_owned()));
                (Token::Fields(fields), behind)
            }
            '.' => {
                let (found, behind) = fields(rest);
                let behind = if found.is_empty() { &rest[1..] } else { behind };
                (Token::Fields(found), behind)
            }
            '0'..='9' | '-' => {
                let end = 1 + end_of(&rest[1..], |next| next.is_ascii_digit());
                let number = rest[..end].parse().map_err(|_| format!("`{}` is no number", &rest[..end]))?;
                (Token::Number(number), &rest[end..])
            }
            next if is_name(next) => {
                let end = end_of(rest, is_name);
                (Token::Word(rest[..end].to_owned()), &rest[end..])
            }
            other => return Err(format!("`{other}` is not understood in an action")),
        };
        tokens.push(token);
        rest = behind;
    }
}

/// `.A.B` and what follows it.
fn fields(text: &str) -> (Vec<String>, &str) {
    let (mut fields, mut rest) = (Vec::new(), text);
    while let Some(behind) = rest.strip_prefix('.') {
        let end = behind.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(behind.len());
        if end == 0 {
            break;
        }
        fields.push(behind[..end].to_owned());
        rest = &behind[end..];
    }
    (fields, rest)
}

/// A text in double quotes, with Go's usual escapes.
fn quoted(text: &str) -> Result<(Token, &str), String> {
    let (mut out, mut characters) = (String::new(), text.char_indices().skip(1));
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((Token::Text(out), &text[at + 1..])),
            '\\' => match characters.next().map(|(_, escaped)| escaped) {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(same @ ('"' | '\\' | '\'')) => out.push(same),
                _ => return Err("an escape in a text is not supported".into()),
            },
            '\n' => break,
            other => out.push(other),
        }
    }
    Err("a text in \" is not closed".into())
}

type Pieces = std::iter::Peekable<std::vec::IntoIter<Piece>>;

/// The nodes up to an `end`, an `else` or the end of the template, and which it was (`else if` keeps its words).
fn block(pieces: &mut Pieces, depth: usize) -> Result<(Vec<Node>, Option<String>), String> {
    if depth > NESTING {
        return Err("blocks are nested too deeply".into());
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let tokens = match piece {
            Piece::Text(text) => {
                if !text.is_empty() {
                    nodes.push(Node::Text(text));
                }
                continue;
            }
            Piece::Action(tokens) => tokens,
        };
        match &tokens[..] {
            [Token::Word(word)] if word == "end" || word == "else" => return Ok((nodes, Some(word.clone()))),
            [Token::Word(word), rest @ ..] if word == "else" => {
                // `{{else if x}}…{{end}}` is `{{else}}{{if x}}…{{end}}{{end}}`.
                let inner = control(rest, pieces, depth + 1)?;
                nodes.push(inner);
                return Ok((nodes, Some(String::new())));
            }
            [Token::Word(word), ..] if REFUSED.contains(&word.as_str()) => {
                return Err(format!("`{word}` is not supported"));
            }
            [Token::Word(word), ..] if matches!(word.as_str(), "if" | "with" | "range") => {
                nodes.push(control(&tokens, pieces, depth + 1)?);
            }
            [Token::Variable(name), Token::Fields(fields), Token::Declare | Token::Assign, rest @ ..]
                if fields.is_empty() =>
            {
                nodes.push(Node::Set(name.clone(), pipeline(rest)?));
            }
            [] => return Err("an action is empty".into()),
            tokens => nodes.push(Node::Print(pipeline(tokens)?)),
        }
    }
    Ok((nodes, None))
}

/// A block that begins with these tokens, up to its `end`.
fn control(tokens: &[Token], pieces: &mut Pieces, depth: usize) -> Result<Node, String> {
    let Some((Token::Word(word), rest)) = tokens.split_first() else {
        return Err("`else` is followed by what is no `if`".into());
    };
    let (names, rest) = match (word.as_str(), rest) {
        ("range", [Token::Variable(one), Token::Fields(a), Token::Declare, rest @ ..]) if a.is_empty() => {
            (vec![one.clone()], rest)
        }
        (
            "range",
            [
                Token::Variable(one),
                Token::Fields(a),
                Token::Comma,
                Token::Variable(other),
                Token::Fields(b),
                Token::Declare,
                rest @ ..,
            ],
        ) if a.is_empty() && b.is_empty() => (vec![one.clone(), other.clone()], rest),
        ("if" | "with" | "range", rest) => (Vec::new(), rest),
        (other, _) => return Err(format!("`else {other}` is not supported")),
    };
    let condition = pipeline(rest)?;
    let (first, mut ended) = body(pieces, depth, word)?;
    let mut second = Vec::new();
    if ended == "else" {
        (second, ended) = body(pieces, depth, word)?;
        if ended == "else" {
            return Err(format!("`{word}` has two `else`"));
        }
    }
    let (mut first, mut second) = (first, second);
    if ended.is_empty() && second.is_empty() {
        // The last node is the block of `else if`.
        second.extend(first.pop());
    }
    Ok(match word.as_str() {
        "if" => Node::If(condition, first, second),
        "with" => Node::With(condition, first, second),
        _ => Node::Range(names, condition, first, second),
    })
}

fn body(pieces: &mut Pieces, depth: usize, word: &str) -> Result<(Vec<Node>, String), String> {
    let (nodes, ended) = block(pieces, depth)?;
    Ok((nodes, ended.ok_or_else(|| format!("`{word}` has no `end`"))?))
}

/// Reads a pipeline.
fn pipeline(tokens: &[Token]) -> Result<Pipeline, String> {
    let (found, rest) = calls(tokens, 0)?;
    match rest.first() {
        None => Ok(found),
        Some(_) => Err("there is a ) too many".into()),
    }
}

/// Reads calls up to a closing parenthesis, or to the end.
fn calls(tokens: &[Token], depth: usize) -> Result<(Pipeline, &[Token]), String> {
    if depth > NESTING {
        return Err("parentheses are nested too deeply".into());
    }
    let (mut pipeline, mut operands, mut rest) = (Vec::new(), Vec::new(), tokens);
    let done = |operands: &mut Vec<Operand>, pipeline: &mut Pipeline| match operands.is_empty() {
        true => Err("there is nothing where a value is expected".to_owned()),
        false => {
            pipeline.push(Call(std::mem::take(operands)));
            Ok(())
        }
    };
    loop {
        let (operand, behind) = match rest {
            [] | [Token::Close(_), ..] => {
                done(&mut operands, &mut pipeline)?;
                return Ok((pipeline, rest));
            }
            [Token::Pipe, behind @ ..] => {
                done(&mut operands, &mut pipeline)?;
                rest = behind;
                continue;
            }
            [Token::Open, behind @ ..] => match calls(behind, depth + 1)? {
                (inner, [Token::Close(fields), behind @ ..]) => {
                    (Operand::Inner(inner, fields.clone()), behind)
                }
                _ => return Err("a ( is not closed".into()),
            },
            [Token::Variable(name), Token::Fields(fields), behind @ ..] => {
                (Operand::Variable(name.clone(), fields.clone()), behind)
            }
            [Token::Fields(fields), behind @ ..] => (Operand::Dot(fields.clone()), behind),
            [Token::Text(text), behind @ ..] => (Operand::Text(text.clone()), behind),
            [Token::Number(number), behind @ ..] => (Operand::Number(*number), behind),
            [Token::Word(word), behind @ ..] => {
                let operand = match word.as_str() {
                    "true" => Operand::Bool(true),
                    "false" => Operand::Bool(false),
                    "nil" => Operand::Nil,
                    _ => Operand::Function(word.clone()),
                };
                (operand, behind)
            }
            _ => return Err("a sign stands where a value is expected".into()),
        };
        operands.push(operand);
        rest = behind;
    }
}
