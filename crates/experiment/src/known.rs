//! Teachers whose file is not here: what identifies their logits is taken from a cache that they left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use logitcask_cache::{CacheKey, LogitCache, Manifest, OpenOptions};
use logitcask_dataset::PreprocessSpec;
use logitcask_teacher::{Layout, TeacherSpec, key_of_spec};
use serde::de::DeserializeOwned;

use crate::event::{Watch, info};
use crate::failure::{Failure, Outcome};
use crate::recipe::Recipe;
use crate::want::hex;

impl Recipe {
    /// Fills in what caches below `cache_dir` say of teachers that the recipe names by a cache (`cache = "..."`), and of those
    /// whose file is not on this machine. Training needs neither model nor runtime, but it needs to know whose rows it reads.
    ///
    /// # Errors
    /// If there is no such cache, or it contradicts what else the recipe says of the teacher; if the file is absent and caches of
    /// several teachers have its name.
    pub fn with_known_teachers(mut self, cache_dir: &Path, watch: &Watch<'_>) -> Outcome<Self> {
        for spec in &mut self.teacher {
            know(spec, cache_dir, watch)?;
        }
        Ok(self)
    }
}

/// Does for one teacher what [`Recipe::with_known_teachers`] does for all.
pub(crate) fn know(spec: &mut TeacherSpec, cache_dir: &Path, watch: &Watch<'_>) -> Outcome {
    if let Some(named) = &spec.cache {
        let path = cache_named(named, cache_dir)?;
        *spec = filled(spec, &Manifest::read(&path)?, &path)?;
        // In full, for the record: another cache may have the same beginning tomorrow.
        if let Some(name) = path.file_name().filter(|name| cache_dir.join(name) == path) {
            spec.cache = Some(name.to_string_lossy().into_owned());
        }
    } else if !logitcask_durable::exists(&spec.onnx).map_err(Failure::io("look at", &spec.onnx))? {
        spec.known = known_by_name(spec, cache_dir, watch)?;
    }
    Ok(())
}

/// The cache that a person means: a folder, the beginning or the end of a folder's name below the cache folder, or at least 8
/// digits of the cache's id.
///
/// # Errors
/// If there is none, or more than one.
pub fn cache_named(text: &str, cache_dir: &Path) -> Outcome<PathBuf> {
    // A whole name needs no look at all the others.
    for path in [PathBuf::from(text), cache_dir.join(text)] {
        if logitcask_durable::is_folder(&path).map_err(Failure::io("look at", &path))? {
            return Ok(path);
        }
    }
    let mut named = Vec::new();
    let is_id = text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for cache in logitcask_cache::list(cache_dir)? {
        let has_id = || {
            let opened = LogitCache::open(&cache.path, OpenOptions::default());
            opened.is_ok_and(|cache| cache.ids().any(|id| hex(&id).starts_with(text)))
        };
        let is_named = cache.name.starts_with(text) || cache.name.ends_with(text);
        if is_named || (is_id && has_id()) {
            named.push(cache.path);
        }
    }
    match (named.pop(), named.len()) {
        (Some(path), 0) => Ok(path),
        (Some(_), more) => Err(Failure::asked(format!("`{text}` fits {} caches", more + 1))
            .with_hint("give more of the name, as `logitcask cache ls` shows it")),
        (None, _) => Err(Failure::asked(format!(
            "no cache under `{}` is named `{text}`",
            cache_dir.display()
        ))
        .with_hint("`logitcask cache ls` shows what there is")),
    }
}

/// The teacher as the cache at `path` has it, with what only the recipe can say.
fn filled(spec: &TeacherSpec, manifest: &Manifest, path: &Path) -> Outcome<TeacherSpec> {
    let unreadable = || {
        Failure::work(format!(
            "cache `{}` says of its teacher what this version does not understand",
            path.display()
        ))
        .with_hint("name the teacher's file instead: `onnx = \"...\"`")
    };
    let filled = of_manifest(spec, manifest).ok_or_else(unreadable)?;
    let plain = TeacherSpec {
        cache: spec.cache.clone(),
        ..serde_json::from_str(r#"{ "cache": "" }"#).map_err(Failure::work)?
    };
    let [given, plain, full] = [spec, &plain, &filled].map(serde_json::to_value);
    let (given, plain, full) = (
        given.map_err(Failure::work)?,
        plain.map_err(Failure::work)?,
        full.map_err(Failure::work)?,
    );
    for (key, value) in given.as_object().into_iter().flatten() {
        let is_given = plain.get(key) != Some(value);
        if is_given && full.get(key) != Some(value) {
            let there = full
                .get(key)
                .map_or("nothing".to_owned(), ToString::to_string);
            return Err(Failure::asked(format!(
                "the recipe says `{key} = {value}` of a teacher whose cache `{}` says {there}",
                path.display()
            ))
            .with_hint(format!("leave `{key}` out: the cache says how it was made")));
        }
    }
    Ok(filled)
}

fn of_manifest(spec: &TeacherSpec, manifest: &Manifest) -> Option<TeacherSpec> {
    fn word<T: DeserializeOwned>(text: &str) -> Option<T> {
        serde_json::from_value(text.into()).ok()
    }
    let key = &manifest.key;
    let (preprocess, rest) = PreprocessSpec::of_identity(&key.preprocess)?;
    let layout = match rest[..] {
        [] => None,
        ["nchw"] => Some(Layout::Nchw),
        ["nhwc"] => Some(Layout::Nhwc),
        _ => return None,
    };
    let classes: Result<Vec<u32>, _> = key.classes.split_whitespace().map(str::parse).collect();
    let classes = classes.ok()?;
    let name = spec.name.clone();
    Some(TeacherSpec {
        name: Some(name.unwrap_or_else(|| manifest.teacher.clone())),
        preprocess,
        layout,
        precision: word(&key.precision)?,
        encoding: manifest.encoding.to_string(),
        output: Some(key.output.clone()),
        output_is: word(&key.output_is)?,
        features: Some(key.features.clone()).filter(|name| !name.is_empty()),
        classes: Some(classes).filter(|classes| !classes.is_empty()),
        batch_size: match key.batch.as_str() {
            "" => spec.batch_size,
            batch => Some(batch.parse().ok()?),
        },
        known: Some(key.clone()),
        ..spec.clone()
    })
}

/// The key that the caches of this name and these settings have, where all of them are one teacher's.
fn known_by_name(
    spec: &TeacherSpec,
    cache_dir: &Path,
    watch: &Watch<'_>,
) -> Outcome<Option<CacheKey>> {
    let wanted = key_of_spec(spec)?;
    let batch = spec.batch_size.map(|rows| rows.to_string());
    let mut teachers = BTreeMap::new();
    for (path, manifest) in logitcask_cache::manifests(cache_dir)? {
        let key = manifest.key;
        let is_it = manifest.teacher == spec.title()
            && key.preprocess == wanted.preprocess
            && key.precision == wanted.precision
            && key.output_is == wanted.output_is
            && key.classes == wanted.classes
            && key.features == wanted.features
            && spec.output.as_ref().is_none_or(|name| *name == key.output)
            && (key.batch.is_empty() || Some(&key.batch) == batch.as_ref());
        if is_it {
            let teacher = (key.teacher.clone(), key.output.clone(), key.batch.clone());
            teachers.entry(teacher).or_insert((path, key));
        }
    }
    let (title, onnx) = (spec.title(), spec.onnx.display());
    if teachers.len() > 1 {
        let paths = teachers
            .values()
            .map(|(path, _)| format!("`{}`", path.display()));
        return Err(Failure::work(format!(
            "the file `{onnx}` of teacher `{title}` is not here, and {} teachers of that name left caches: {}",
            teachers.len(),
            paths.collect::<Vec<_>>().join(", ")
        ))
        .with_hint("name the cache instead of the file: `cache = \"...\"` in `[[teacher]]`"));
    }
    // Any of its caches says who it is; that one of them was transcoded says nothing of the rows that are wanted.
    let known = teachers.into_values().next().map(|(_, key)| CacheKey {
        transcoded: String::new(),
        ..key
    });
    if let Some(key) = &known {
        let digest = key.teacher.get(..12).unwrap_or(&key.teacher);
        info(
            watch,
            format!(
                "the file `{onnx}` of teacher `{title}` is not here: the caches that it left say its digest, {digest}..."
            ),
        );
    }
    Ok(known)
}
