"""JupyterLab on a home: `aico-lab lab`."""
