//! Plans in files: written as a whole or not at all, and read to their end before anything of them is carried out.

use dray_core::{Action, MAX_LINE, PlanEnd, PlanHeader, PlanLine};
use dray_engine::{Error, Kind, Planned};
use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// A plan that is being written. It appears under its path when it is whole.
pub struct PlanFile {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    end: PlanEnd,
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::new(Kind::Io, format!("{doing} the plan {}: {error}", path.display()))
}

impl PlanFile {
    /// Begins a plan.
    ///
    /// # Errors
    /// Fails if its folder cannot be written.
    pub fn create(path: &Path, header: PlanHeader) -> Result<Self, Error> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(folder).map_err(|error| failed("write", path, &error))?;
        let mut plan =
            PlanFile { path: path.to_owned(), file: BufWriter::new(file), end: PlanEnd::default() };
        plan.line(&PlanLine::Plan(header))?;
        Ok(plan)
    }

    fn line(&mut self, line: &PlanLine) -> Result<(), Error> {
        let text = line.written();
        if text.len() > MAX_LINE {
            let text =
                format!("write the plan {}: an item has more than {MAX_LINE} bytes", self.path.display());
            return Err(Error::new(Kind::Invalid, text));
        }
        writeln!(self.file, "{text}").map_err(|error| failed("write", &self.path, &error))
    }

    /// Takes in something that a plan holds: copies and deletions are written, all else is counted.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub fn add(&mut self, planned: &Planned) -> Result<(), Error> {
        match planned {
            Planned::Copy(item) if item.copy.action == Action::Copy => {
                self.end.copies += 1;
                self.line(&PlanLine::Copy(Box::new(item.copy.clone())))?;
            }
            Planned::Copy(_) => self.end.unchanged += 1,
            Planned::Delete(item) => {
                self.end.deletions += 1;
                self.line(&PlanLine::Delete(Box::new(item.deletion.clone())))?;
            }
            Planned::Dropped { .. } => self.end.dropped += 1,
            Planned::Failed { rule, deletes, .. } => {
                self.end.failed += 1;
                if !deletes && let Err(at) = self.end.failed_rules.binary_search(rule) {
                    self.end.failed_rules.insert(at, rule.clone());
                }
            }
        }
        Ok(())
    }

    /// Ends the plan, which then is there. Given are its counts.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub fn keep(mut self) -> Result<PlanEnd, Error> {
        let end = self.end.clone();
        self.line(&PlanLine::End(end.clone()))?;
        let path = self.path;
        let file = self.file.into_inner().map_err(|error| failed("write", &path, error.error()))?;
        file.as_file().sync_all().map_err(|error| failed("write", &path, &error))?;
        file.persist(&path).map_err(|error| failed("write", &path, &error.error))?;
        Ok(end)
    }
}

/// A plan that was read to its end, and is whole. It is an iterator over its items.
pub struct SavedPlan {
    path: PathBuf,
    lines: Lines,
    /// Its first line.
    pub header: PlanHeader,
    /// Its last line.
    pub end: PlanEnd,
}

impl SavedPlan {
    /// Opens a plan and reads it to its end, so that nothing of one that is cut off or malformed is carried out.
    ///
    /// # Errors
    /// Fails if it cannot be read, or is no whole plan of this version.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| failed("read", path, &error))?;
        let mut lines = Lines { file: BufReader::new(file), number: 0 };
        let header = match lines.next(path)? {
            Some(PlanLine::Plan(header)) => header,
            _ => return Err(wrong(path, 1, "it does not begin as a plan does")),
        };
        let (mut copies, mut deletions, mut end) = (0, 0, None::<PlanEnd>);
        while let Some(line) = lines.next(path)? {
            match (line, &end) {
                (PlanLine::Copy(_), None) => copies += 1,
                (PlanLine::Delete(_), None) => deletions += 1,
                (PlanLine::End(counts), None) => end = Some(counts),
                _ => return Err(wrong(path, lines.number, "it goes on behind its end, or begins again")),
            }
        }
        let end = match end {
            Some(end) if (end.copies, end.deletions) == (copies, deletions) => end,
            _ => return Err(wrong(path, lines.number, "it is cut off")),
        };
        let mut file = lines.file;
        file.rewind().map_err(|error| failed("read", path, &error))?;
        Ok(SavedPlan { path: path.to_owned(), lines: Lines { file, number: 0 }, header, end })
    }
}

impl Iterator for SavedPlan {
    type Item = Result<PlanLine, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.lines.next(&self.path) {
                Ok(Some(item @ (PlanLine::Copy(_) | PlanLine::Delete(_)))) => return Some(Ok(item)),
                Ok(Some(PlanLine::Plan(_))) => {}
                Ok(Some(PlanLine::End(_)) | None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn wrong(path: &Path, number: u64, why: &str) -> Error {
    let text = format!("read the plan {}, line {number}: {why}", path.display());
    Error::new(Kind::Invalid, text).help("`dray plan POLICY --out FILE` makes one")
}

struct Lines {
    file: BufReader<File>,
    number: u64,
}

impl Lines {
    fn next(&mut self, path: &Path) -> Result<Option<PlanLine>, Error> {
        self.number += 1;
        let mut text = String::new();
        let read = self.file.by_ref().take(MAX_LINE as u64 + 2).read_line(&mut text);
        match read.map_err(|error| failed("read", path, &error))? {
            0 => Ok(None),
            _ if !text.ends_with('\n') => Err(wrong(path, self.number, "it is cut off, or too long")),
            _ => PlanLine::parse(text.trim_end())
                .map(Some)
                .map_err(|error| wrong(path, self.number, &error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_core::{Digest, PLAN_VERSION, PolicyId};

    fn header() -> PlanHeader {
        let policy = PolicyId { path: "/p.toml".into(), digest: Digest::of(b"") };
        PlanHeader { dray_plan: PLAN_VERSION, made_by: "0".into(), made_at: 0, policy }
    }

    #[test]
    fn a_plan_appears_as_a_whole_and_one_that_is_cut_off_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        let plan = PlanFile::create(&path, header()).unwrap();
        assert!(!path.exists());
        plan.keep().unwrap();
        let mut read = SavedPlan::open(&path).unwrap();
        assert_eq!((read.header.clone(), read.end.clone()), (header(), PlanEnd::default()));
        assert!(read.next().is_none());
        let whole = std::fs::read_to_string(&path).unwrap();
        let first = whole.lines().next().unwrap();
        for cut in ["", "\n", first, &format!("{first}\n"), &format!("{whole}{whole}"), &whole[1..]] {
            std::fs::write(&path, cut).unwrap();
            assert!(SavedPlan::open(&path).is_err(), "{cut}");
        }
    }
}
