"""``python -m steer_verl.cli`` is ``steer``."""

from steer_verl.cli import main

if __name__ == "__main__":
    main()
