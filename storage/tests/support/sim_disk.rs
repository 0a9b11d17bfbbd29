//! A disk that fails on request, and that forgets at a power cut what was not synced.
//!
//! Files stand in a real folder, so that reading works; beside it the disk remembers what of them is durable: for a
//! file the bytes up to the last successful sync, for a folder the names as of its last sync. A power cut leaves a
//! folder as it may look afterwards: of each file's unsynced bytes any prefix survives, perhaps with zeros after it,
//! and of each folder's unsynced changes any prefix. A process that is killed leaves all of it, and no more durable
//! than it was.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trefoil_storage::disk::{Disk, DiskFile, Space};

/// How steps fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// From now on nothing happens any more: the process was killed here.
    Halt,
    /// `EIO`; a write is done in part, a sync drops what it should have kept.
    Broken,
    /// `ENOSPC`; a write is done in part.
    Full,
}

/// Counts steps and says which fail.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Steps until the first failing one.
    after: u64,
    /// So many fail.
    count: u64,
    failure: Failure,
}

#[derive(Debug, Clone)]
enum Node {
    File(usize),
    Dir(usize),
}

#[derive(Debug, Default)]
struct Inode {
    data: Vec<u8>,
    synced: usize,
    /// A failed sync dropped these pages: no later sync of this file brings them back.
    lost_from: Option<usize>,
}

/// A change of names in a folder.
#[derive(Debug, Clone)]
enum Rename {
    Set(OsString, Node),
    Remove(OsString),
    Move(OsString, OsString, Node),
}

#[derive(Debug, Default)]
struct Folder {
    now: BTreeMap<OsString, Node>,
    durable: BTreeMap<OsString, Node>,
    pending: Vec<Rename>,
}

#[derive(Debug)]
struct State {
    inodes: Vec<Inode>,
    folders: Vec<Folder>,
    /// The number of the outermost folder.
    root: usize,
    rng: StdRng,
    plan: Option<Plan>,
    steps: u64,
    space: Space,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct SimDisk {
    root: PathBuf,
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// A disk for the folder `root`, which must exist; what is in it is durable.
    pub fn new(root: &Path, seed: u64) -> Self {
        let mut state = State {
            inodes: Vec::new(),
            folders: Vec::new(),
            root: 0,
            rng: StdRng::seed_from_u64(seed),
            plan: None,
            steps: 0,
            space: Space { free: 1 << 40, total: 1 << 41 },
        };
        state.root = load(&mut state, root);
        Self { root: root.to_owned(), state: Arc::new(Mutex::new(state)) }
    }

    /// Makes `count` steps fail, beginning `after` steps from now.
    pub fn fail(&self, after: u64, count: u64, failure: Failure) {
        self.state.lock().plan = Some(Plan { after, count, failure });
    }

    /// Lets everything succeed again.
    pub fn mend(&self) {
        self.state.lock().plan = None;
    }

    pub fn set_free(&self, free: u64) {
        self.state.lock().space.free = free;
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// Builds in `to`, an empty folder, what a power cut now might leave.
    pub fn power_cut(&self, to: &Path) {
        let mut state = self.state.lock();
        let root = state.root;
        build(&outcome(&mut state, root), to);
    }

    /// Cuts the power: the folder is changed to what is left, all of which is durable. No file may be open for writing.
    pub fn cut_power(&self) {
        let mut state = self.state.lock();
        let root = state.root;
        let left = outcome(&mut state, root);
        self.become_what_is(&mut state, &left);
    }

    /// Removes all that was made.
    pub fn clear(&self) {
        self.become_what_is(&mut self.state.lock(), &BTreeMap::new());
    }

    fn become_what_is(&self, state: &mut State, left: &BTreeMap<OsString, Left>) {
        let before = Tables { inodes: take(&mut state.inodes), folders: take(&mut state.folders) };
        state.root = settle(state, &before, Some(state.root), left, &self.root);
    }

    /// The folder's place in the tables, and the last name of `path`.
    fn locate(&self, state: &State, path: &Path) -> io::Result<(usize, OsString)> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no such folder");
        let relative = path.strip_prefix(&self.root).map_err(|_| missing())?;
        let mut folder = state.root;
        let parent = relative.parent().ok_or_else(missing)?;
        for name in parent.iter() {
            match state.folders[folder].now.get(name) {
                Some(Node::Dir(next)) => folder = *next,
                _ => return Err(missing()),
            }
        }
        Ok((folder, relative.file_name().ok_or_else(missing)?.to_owned()))
    }
}

fn load(state: &mut State, path: &Path) -> usize {
    let number = state.folders.len();
    state.folders.push(Folder::default());
    let mut names: BTreeMap<OsString, Node> = BTreeMap::new();
    let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let node = if entry.path().is_dir() {
            Node::Dir(load(state, &entry.path()))
        } else {
            let data = fs::read(entry.path()).unwrap();
            state.inodes.push(Inode { synced: data.len(), data, lost_from: None });
            Node::File(state.inodes.len() - 1)
        };
        names.insert(entry.file_name(), node);
    }
    state.folders[number] = Folder { now: names.clone(), durable: names, pending: Vec::new() };
    number
}

/// What a power cut leaves.
enum Left {
    File(Vec<u8>),
    Dir(BTreeMap<OsString, Left>),
}

fn outcome(state: &mut State, folder: usize) -> BTreeMap<OsString, Left> {
    let mut names = state.folders[folder].durable.clone();
    let survive = state.rng.random_range(0..=state.folders[folder].pending.len());
    for change in &state.folders[folder].pending[..survive] {
        match change {
            Rename::Set(name, node) => drop(names.insert(name.clone(), node.clone())),
            Rename::Remove(name) => drop(names.remove(name)),
            Rename::Move(from, name, node) => {
                names.remove(from);
                names.insert(name.clone(), node.clone());
            }
        }
    }
    let mut left = BTreeMap::new();
    for (name, node) in names {
        let one = match node {
            Node::Dir(next) => Left::Dir(outcome(state, next)),
            Node::File(number) => {
                let inode = &state.inodes[number];
                let len = inode.data.len();
                let synced = inode.synced.min(inode.lost_from.unwrap_or(usize::MAX));
                let kept = state.rng.random_range(synced..=len);
                let mut data = inode.data[..kept].to_vec();
                if state.rng.random_bool(0.3) {
                    data.resize(len, 0);
                }
                Left::File(data)
            }
        };
        left.insert(name, one);
    }
    left
}

fn build(left: &BTreeMap<OsString, Left>, to: &Path) {
    for (name, one) in left {
        let path = to.join(name);
        match one {
            Left::Dir(inside) => {
                fs::create_dir(&path).unwrap();
                build(inside, &path);
            }
            Left::File(data) => fs::write(path, data).unwrap(),
        }
    }
}

/// What the disk knew before a power cut.
struct Tables {
    inodes: Vec<Inode>,
    folders: Vec<Folder>,
}

/// Makes a real folder into what is left, and enters that into the tables, where its number is returned.
///
/// * `folder`: the number in `before` of what stands there.
fn settle(
    state: &mut State,
    before: &Tables,
    folder: Option<usize>,
    left: &BTreeMap<OsString, Left>,
    path: &Path,
) -> usize {
    let nothing = BTreeMap::new();
    let now = folder.map_or(&nothing, |number| &before.folders[number].now);
    for (name, node) in now {
        match (node, left.get(name)) {
            (Node::Dir(_), Some(Left::Dir(_))) | (Node::File(_), Some(Left::File(_))) => {}
            (Node::File(_), _) => fs::remove_file(path.join(name)).unwrap(),
            (Node::Dir(number), _) => {
                settle(state, before, Some(*number), &BTreeMap::new(), &path.join(name));
                fs::remove_dir(path.join(name)).unwrap();
            }
        }
    }
    let mut names = BTreeMap::new();
    for (name, one) in left {
        let node = match one {
            Left::File(data) => {
                let stands = match now.get(name) {
                    Some(Node::File(number)) => before.inodes[*number].data == *data,
                    _ => false,
                };
                if !stands {
                    fs::write(path.join(name), data).unwrap();
                }
                let inode = Inode { data: data.clone(), synced: data.len(), lost_from: None };
                state.inodes.push(inode);
                Node::File(state.inodes.len() - 1)
            }
            Left::Dir(inside) => {
                let there = match now.get(name) {
                    Some(Node::Dir(number)) => Some(*number),
                    _ => None,
                };
                if there.is_none() {
                    fs::create_dir(path.join(name)).unwrap();
                }
                Node::Dir(settle(state, before, there, inside, &path.join(name)))
            }
        };
        names.insert(name.clone(), node);
    }
    state.folders.push(Folder { now: names.clone(), durable: names, pending: Vec::new() });
    state.folders.len() - 1
}

impl State {
    /// Takes a step. `Some` when it must fail.
    fn step(&mut self) -> Option<Failure> {
        self.steps += 1;
        let plan = self.plan.as_mut()?;
        if plan.after > 0 {
            plan.after -= 1;
            return None;
        }
        let failure = plan.failure;
        if failure != Failure::Halt {
            plan.count -= 1;
            if plan.count == 0 {
                self.plan = None;
            }
        }
        Some(failure)
    }

    fn check(&mut self) -> io::Result<()> {
        self.step().map_or(Ok(()), |failure| Err(error(failure)))
    }

    fn change(&mut self, folder: usize, change: Rename) {
        let folder = &mut self.folders[folder];
        match &change {
            Rename::Set(name, node) => drop(folder.now.insert(name.clone(), node.clone())),
            Rename::Remove(name) => drop(folder.now.remove(name)),
            Rename::Move(from, name, node) => {
                folder.now.remove(from);
                folder.now.insert(name.clone(), node.clone());
            }
        }
        folder.pending.push(change);
    }
}

fn error(failure: Failure) -> io::Error {
    match failure {
        Failure::Full => io::Error::from_raw_os_error(28),
        Failure::Halt | Failure::Broken => io::Error::from_raw_os_error(5),
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.check()?;
        let (folder, name) = self.locate(&state, path)?;
        let file = File::create(path)?;
        state.inodes.push(Inode::default());
        let number = state.inodes.len() - 1;
        state.change(folder, Rename::Set(name, Node::File(number)));
        Ok(Box::new(SimFile { number, file, state: self.state.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        let ((source, name), (target, new_name)) =
            (self.locate(&state, from)?, self.locate(&state, to)?);
        fs::rename(from, to)?;
        let node = state.folders[source].now[&name].clone();
        if source == target {
            state.change(source, Rename::Move(name, new_name, node));
        } else {
            state.change(target, Rename::Set(new_name, node));
            state.change(source, Rename::Remove(name));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        let (folder, name) = self.locate(&state, path)?;
        fs::remove_file(path)?;
        state.change(folder, Rename::Remove(name));
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        let (folder, name) = self.locate(&state, path)?;
        if state.folders[folder].now.contains_key(&name) {
            return Ok(());
        }
        fs::create_dir(path)?;
        state.folders.push(Folder::default());
        let number = state.folders.len() - 1;
        state.change(folder, Rename::Set(name, Node::Dir(number)));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        let (folder, name) = self.locate(&state, path)?;
        fs::remove_dir(path)?;
        state.change(folder, Rename::Remove(name));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        let (folder, _) = self.locate(&state, &path.join("x"))?;
        let folder = &mut state.folders[folder];
        folder.durable = folder.now.clone();
        folder.pending.clear();
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(self.state.lock().space)
    }
}

/// A file on a [`SimDisk`].
#[derive(Debug)]
struct SimFile {
    number: usize,
    file: File,
    state: Arc<Mutex<State>>,
}

impl Write for SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        let failure = state.step();
        let kept = match failure {
            None => bytes.len(),
            Some(_) => state.rng.random_range(0..=bytes.len()),
        };
        // After a halt nothing reaches the disk, apart from part of the write that was under way.
        let halted = failure == Some(Failure::Halt);
        let under_way = state.plan.is_some_and(|plan| plan.count > 0);
        if !halted || under_way {
            self.file.write_all(&bytes[..kept])?;
            state.inodes[self.number].data.extend_from_slice(&bytes[..kept]);
        }
        if halted && let Some(plan) = &mut state.plan {
            plan.count = 0;
        }
        failure.map_or(Ok(kept), |failure| Err(error(failure)))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state.lock();
        let failure = state.step();
        let inode = &mut state.inodes[self.number];
        match failure {
            None => inode.synced = inode.data.len(),
            Some(Failure::Halt) => {}
            Some(_) => {
                inode.lost_from.get_or_insert(inode.synced);
            }
        }
        failure.map_or(Ok(()), |failure| Err(error(failure)))
    }
}
