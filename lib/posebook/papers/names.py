"""How papers, models and lifters are written on pages: the authors' spelling instead of the names in code."""

PAPERS = {  # key in data/published and data/claims.csv -> the authors' spelling
    "StarNet-Pose": "StarNet-Pose",
    "AMFACPose": "AMFACPose",
    "LAPX": "LAPX",
    "ViTPose": "ViTPose++",
    "HoT": "HoT",
    "H2OT": "H₂OT",
    "KTPFormer": "KTPFormer",
    "StarPose": "StarPose",
}
FAMILIES = {  # the part of a model name before its size -> the authors' spelling
    "starnet-pose": "StarNet-Pose",
    "amfacpose": "AMFACPose",
    "lapx": "LAPX",
    "lap": "LAP",
    "rtmpose": "RTMPose",
    "lpn": "LPN",
    "simplebaseline": "SimpleBaseline",
    "simcc": "SimCC",
    "hrnet": "HRNet",
    "lite-hrnet": "Lite-HRNet",
    "hrformer": "HRFormer",
    "hf-hrnet": "HF-HRNet",
    "vitpose": "ViTPose",
    "vitpose-plus": "ViTPose++",
    "mixste": "MixSTE",
    "motionbert": "MotionBERT",
    "ktpformer": "KTPFormer",
    "starpose": "StarPose",
}
PEERS = {  # files of other projects, without suffix -> the authors' spelling
    "movenet_lightning_int8": "MoveNet Lightning (int8)",
    "pose_landmark_lite": "BlazePose lite",
    "pose_landmark_full": "BlazePose full",
}
DATASETS = {"coco": "COCO", "coco-sample": "COCO sample", "coco-mini": "COCO-mini", "crowdpose": "CrowdPose"}
DATASETS |= {"mpii": "MPII", "lspet": "LSPET", "h36m": "Human3.6M", "3dhp": "MPI-INF-3DHP"}
METHODS = {  # methods of lifters, as runs and studies name them -> as pages write them
    "full": "MixSTE",
    "mixste": "MixSTE",
    "hot": "HoT",
    "uniform": "uniform frames",
    "subsampled": "fewer input frames",
    "ktpformer, full": "KTPFormer",
    "plain": "plain lifter",
    "starpose": "StarPose",
    "guided": "guidance",
    "constant-0.6": "fixed probability 0.6",
    "schedule-1.0-0.5": "schedule 1.0 to 0.5",
}
BACKBONES = {"resnet": "ResNet-", "hrnet-w": "HRNet-W"}  # the part after "simcc-"


def display_name(name: str) -> str:
    """A model name as its authors write it: 'starnet-pose-t' becomes 'StarNet-Pose-T'.

    Raises ValueError for a name that belongs to no family in FAMILIES.
    """
    family = max(
        (key for key in FAMILIES if name == key or name.startswith(f"{key}-")), key=len, default=None
    )
    if family is None:
        raise ValueError(f"no display name for {name!r}: add its family to posebook.papers.names.FAMILIES")
    size = name[len(family) :].removeprefix("-")
    for backbone, label in BACKBONES.items():
        size = size.replace(backbone, label)
    if family != "rtmpose":  # its authors write RTMPose-t
        size = size[:1].upper() + size[1:]
    return f"{FAMILIES[family]}-{size}" if size else FAMILIES[family]


def display_name_or_same(name: str) -> str:
    """`display_name`, the name of another project in PEERS, or else the name itself."""
    try:
        return PEERS.get(name) or display_name(name)
    except ValueError:
        return name


def method_name(method: str) -> str:
    """A method of a run or study as pages write it: 'h2ot-uniform' becomes 'H₂OT, uniform'."""
    parts = [METHODS.get(part) or part.replace("h2ot-", "H₂OT, ") for part in method.split(" + ")]
    return " + ".join(parts).replace("ktpformer", FAMILIES["ktpformer"]).replace("-", " ")


def display_size(size: tuple[int, int] | list[int]) -> str:
    """An input size (height, width) as text: (256, 192) becomes '256×192'."""
    return "×".join(map(str, size))
