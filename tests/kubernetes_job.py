"""pipelines/cluster/kubernetes_job.yaml without a cluster: kubernetes_job.py BINARY.

The manifest is read by Kubernetes' own client model of a Job and must come back unchanged, so that no field is misspelt or
misplaced; then the container's command runs here once for every completion index, all at a time as pods would, and the
cache must be byte-identical to a single-process one. Needs the packages `kubernetes` and `pyyaml`.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from kubernetes import client

ROOT = Path(__file__).resolve().parent.parent
RECIPE = "pipelines/quick.toml"


def read_as_a_job(manifest):
    api = client.ApiClient()
    job = api.deserialize(json.dumps(manifest), "V1Job", "application/json")
    back = api.sanitize_for_serialization(job)
    assert back == manifest, f"Kubernetes would read this differently:\n{json.dumps(back, indent=1)}"
    return job


def project_in(folder, binary):
    """What the image and its volume hold: the program, its library, recipes and data."""
    (folder / "target/release").mkdir(parents=True)
    (folder / "target/release/logitcask").symlink_to(binary)
    (folder / "data").mkdir()
    for name in (".runtime", "pipelines", "data/digits"):
        (folder / name).symlink_to(ROOT / name)


def chunks(cache_dir):
    return {str(path.relative_to(cache_dir)): path.read_bytes() for path in sorted(Path(cache_dir).rglob("*.arrow"))}


def main():
    binary = Path(sys.argv[1]).resolve()
    manifest = yaml.safe_load((ROOT / "pipelines/cluster/kubernetes_job.yaml").read_text())
    job = read_as_a_job(manifest)
    [container] = job.spec.template.spec.containers
    given = {variable.name: variable.value for variable in container.env}
    assert job.spec.completion_mode == "Indexed" and job.spec.completions == int(given["PARTS"])
    [mount], [volume] = container.volume_mounts, job.spec.template.spec.volumes
    assert mount.name == volume.name and mount.mount_path == f"{container.working_dir}/data"
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        project_in(folder, binary)
        # Small chunks, so that every part has some, and a given batch, so that no trial decides.
        recipe = (ROOT / RECIPE).read_text().replace("[[teacher]]", "[[teacher]]\nchunk_rows = 64\nbatch_size = 16")
        (folder / "recipe.toml").write_text(recipe)
        pods = []
        for index in range(job.spec.completions):
            environment = {**os.environ, **given, "RECIPE": "recipe.toml", "JOB_COMPLETION_INDEX": str(index)}
            pods.append(subprocess.Popen(container.command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True))
        for index, pod in enumerate(pods):
            _, said = pod.communicate()
            assert pod.returncode == 0, f"index {index} failed:\n{said}"
        single = [binary, "teacher-logits", "recipe.toml", "--cache-dir", folder / "single"]
        subprocess.run(single, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        found, expected = chunks(folder / "data/cache"), chunks(folder / "single")
        assert expected and found == expected, "the pods' cache differs from a single-process one"
    print(f"{len(pods)} pods' commands, side by side: {len(found)} chunks, byte-identical to a single process's")


if __name__ == "__main__":
    main()
