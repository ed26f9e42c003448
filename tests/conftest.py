"""What the tests share: one thread each, a browser, a server, a small dataset, and real samples if any."""

import http.server
import json
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from posebook import skeletons

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real samples ($POSEBOOK_TEST_DATA); skips where there is none."""
    if "POSEBOOK_TEST_DATA" not in os.environ:
        pytest.skip("POSEBOOK_TEST_DATA does not name a folder of real samples")
    folder = Path(os.environ["POSEBOOK_TEST_DATA"])
    assert folder.is_dir(), f"POSEBOOK_TEST_DATA names {folder}, which is not there"
    return folder


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium; skips if there is none."""
    from playwright.sync_api import sync_playwright

    from page_helpers import CHROMIUM, CHROMIUM_FLAGS

    if CHROMIUM is None:
        pytest.skip("no chromium here (on Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield window
        window.close()


@pytest.fixture
def file_server():
    """A server of `content`, with the fault `fault`; `ranges` has the requested ranges."""
    from http_helpers import Handler

    instance = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.content, instance.fault, instance.ranges = b"", "none", []
    thread = threading.Thread(target=instance.serve_forever)
    thread.start()
    yield instance
    instance.shutdown()
    thread.join()
    instance.server_close()


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A dataset of 24 noise pictures with a person each, as train and as val, in COCO's layout."""
    root = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(1, 25):
            cv2.imwrite(str(root / split / f"{i}.jpg"), rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
            images.append({"id": i, "file_name": f"{i}.jpg", "height": 48, "width": 64})
            joints = np.concatenate([rng.uniform(4, 44, (17, 2)), np.full((17, 1), 2)], 1)
            annotations.append(
                {
                    "id": i,
                    "image_id": i,
                    "category_id": 1,
                    "bbox": [4, 4, 40, 40],
                    "area": 1600.0,
                    "iscrowd": 0,
                }
                | {"num_keypoints": 17, "keypoints": joints.ravel().tolist()}
            )
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def own(small, tmp_path_factory):
    """The people of `small` turned upside down, with named joints in another order and without a nose."""
    root = tmp_path_factory.mktemp("own")
    order = [*range(16, 4, -1), 3, 4, 1, 2]  # of COCO's joints
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / split).mkdir()
        for path in sorted((small / split).glob("*.jpg")):
            cv2.imwrite(str(root / split / path.name), cv2.imread(str(path))[::-1])
        content = json.loads((small / "annotations" / f"person_keypoints_{split}.json").read_text())
        names = [skeletons.get("coco").keypoints[i] for i in order]
        content["categories"][0] |= {"keypoints": names, "skeleton": []}
        for entry in content["annotations"]:
            joints = np.array(entry["keypoints"]).reshape(17, 3)[order]
            joints[:, 1] = 47 - joints[:, 1]
            entry |= {"keypoints": joints.ravel().tolist(), "num_keypoints": 16}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return root
