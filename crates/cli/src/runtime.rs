//! What the environment says about this machine. Only this crate reads it.

use std::path::PathBuf;

/// ONNX Runtime's library where `ORT_DYLIB_PATH` names one; otherwise it is searched for.
pub(crate) fn library_path() -> Option<PathBuf> {
    std::env::var_os("ORT_DYLIB_PATH")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// The vector extensions that decide which kernels run, hence which bits come out.
pub(crate) fn cpu_features() -> String {
    let mut features: Vec<&str> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    for (name, there) in [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        (
            "avx512bf16",
            std::arch::is_x86_feature_detected!("avx512bf16"),
        ),
    ] {
        if there {
            features.push(name);
        }
    }
    #[cfg(target_arch = "aarch64")]
    features.push("neon");
    match features.is_empty() {
        true => "no vector extensions that we use".to_owned(),
        false => features.join(" "),
    }
}
