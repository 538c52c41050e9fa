"""Let the tests import the modules of this folder."""

import sys
from pathlib import Path

# Test folders are not packages: the tests import their helper modules through this path.
sys.path.append(str(Path(__file__).parent))
