"""`python -m certbot_seafile`: the console script, where none is on PATH.

The law: nothing but the way to cli.py.
"""

import sys

from certbot_seafile import cli

sys.exit(cli.main())
