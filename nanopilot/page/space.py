"""
The page as a folder that is a Space of the Hugging Face hub, or runs in any container: the code, the policy, what is to
be installed, a Dockerfile and a card. Files only: nothing here goes online.

$ python sample_policy.py --export_space=space
$ hf upload you/nanopilot space --repo-type=space
"""

import shutil
import tomllib
from pathlib import Path

from data.exporters.episodes import NEW_FOLDER, whole_folder
from nanopilot import checkpoint as checkpoints

CODE = ('model.py', 'sample_policy.py', 'config', 'data', 'nanopilot')
LEFT_OUT = shutil.ignore_patterns('__pycache__', 'archives', 'prepared', 'policy', '*.png', '*.gif')
PORT = 7860  # that the hub looks at
DOCKERFILE = f"""FROM python:3.11-slim
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
RUN useradd --uid 1000 user
USER user
ENV MPLCONFIGDIR=/tmp OMP_NUM_THREADS=1
CMD ["python", "sample_policy.py", "--serve", "--out_dir=policy", "--host=0.0.0.0", "--port={PORT}"]
"""
CARD = f"""---
title: nanoPilot
sdk: docker
app_port: {PORT}
license: mit
---

# A small policy, steered by words

Type what the robot should do and watch it drive; type again while it is on the way. It is a policy of nanoPilot,
trained on `NAME`. Everyone who visits has a robot of their own, and all robots share one model.

Elsewhere: `docker build -t nanopilot . && docker run -p {PORT}:{PORT} nanopilot`, or `pip install -r requirements.txt`
and `python sample_policy.py --serve --out_dir=policy`.
"""


def export(folder, to, dataset):
    """
    folder: a checkpoint; to: a new folder, written whole or not at all; dataset: its name, for the card. ValueError
    where something is there
    """
    root, to = Path(__file__).parent.parent.parent, Path(to)
    if to.exists():
        raise ValueError(f'{to} is there already. {NEW_FOLDER}')
    with whole_folder(to) as partial:
        for name in CODE:
            if (root / name).is_dir():
                shutil.copytree(root / name, partial / name, ignore=LEFT_OUT)
            else:
                shutil.copyfile(root / name, partial / name)
        checkpoints.export(folder, partial / 'policy')
        (partial / 'requirements.txt').write_text('\n'.join(requirements(root)) + '\n')
        (partial / 'Dockerfile').write_text(DOCKERFILE)
        (partial / 'README.md').write_text(CARD.replace('NAME', dataset))


def requirements(root):
    """what pyproject.toml asks for, and the page, without the parts that only training needs"""
    project = tomllib.loads((root / 'pyproject.toml').read_text())['project']
    return project['dependencies'] + project['optional-dependencies']['page']
