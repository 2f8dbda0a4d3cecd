//! Where in a JSON text serde_json gave up, as a path.
//!
//! serde_json says line and column of a data error: the end of a scalar or of a whole container, the beginning of
//! a container of the wrong type, or the end of a key that is not known. The text up to there is sound JSON.
//! (`serde_path_to_error` would say the same at the price of a second copy of all decoding code in each contract.)

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Index(usize),
    /// Only keys whose value was being read: a key that is not known is never here.
    Key(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    pub steps: Vec<Step>,
    /// Values in the outermost array up to there.
    pub elements: usize,
}

/// The value that ends, or the container that begins, at this place. Line and column count from 1 and 0.
pub fn path(text: &[u8], line: usize, column: usize) -> Path {
    let mut offset = column;
    for (skipped, part) in text.split(|byte| *byte == b'\n').enumerate() {
        if skipped + 1 == line {
            break;
        }
        offset += part.len() + 1;
    }
    let mut scan = Scan {
        text,
        at: 0,
        offset,
        path: Path::default(),
    };
    // None: past the place without a value there; what is on the path then holds it.
    let _ = scan.value(0);
    scan.path
}

/// serde_json decodes no deeper, but skips what it does not want without counting.
const DEPTH_MAX: usize = 128;

/// Found; the path is as it should be.
struct Found;

struct Scan<'t> {
    text: &'t [u8],
    at: usize,
    offset: usize,
    path: Path,
}

impl Scan<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Reads one value; ends early where the place is.
    fn value(&mut self, depth: usize) -> Result<(), Found> {
        if depth > DEPTH_MAX {
            return Err(Found);
        }
        match self.peek() {
            Some(b'[' | b'{') if self.at == self.offset => return Err(Found),
            Some(b'[') => self.array(depth)?,
            Some(b'{') => self.object(depth)?,
            Some(b'"') => {
                self.string();
            }
            _ => self.word(),
        }
        if self.at >= self.offset { Err(Found) } else { Ok(()) }
    }

    fn array(&mut self, depth: usize) -> Result<(), Found> {
        self.at += 1;
        let mut index = 0;
        loop {
            match self.peek() {
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b',') => {
                    self.at += 1;
                    continue;
                }
                Some(_) if self.at <= self.offset => {}
                _ => return Err(Found),
            }
            if depth == 0 {
                self.path.elements = index + 1;
            }
            self.path.steps.push(Step::Index(index));
            self.value(depth + 1)?;
            self.path.steps.pop();
            index += 1;
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), Found> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b',') => {
                    self.at += 1;
                    continue;
                }
                Some(b'"') if self.at <= self.offset => {}
                _ => return Err(Found),
            }
            let key = self.string();
            if self.at >= self.offset {
                return Err(Found);
            }
            if self.peek() == Some(b':') {
                self.at += 1;
            }
            self.path.steps.push(Step::Key(key));
            self.value(depth + 1)?;
            self.path.steps.pop();
        }
    }

    /// A string's raw content. Names of fields have no escapes; a key with some is not a field.
    fn string(&mut self) -> String {
        let start = self.at + 1;
        self.at = start;
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        let end = self.at.min(self.text.len());
        self.at = (self.at + 1).min(self.text.len());
        String::from_utf8_lossy(&self.text[start.min(end)..end]).into_owned()
    }

    fn word(&mut self) {
        let start = self.at;
        while self
            .text
            .get(self.at)
            .is_some_and(|byte| !b",]} \n\r\t:".contains(byte))
        {
            self.at += 1;
        }
        // Whatever it is, it moves on.
        self.at = self.at.max(start + 1);
    }
}
