"""Let the tests import the modules of this folder."""

import sys
from pathlib import Path

# Test folders are no packages: the tests import the helper modules beside them by this path.
sys.path.append(str(Path(__file__).parent))
