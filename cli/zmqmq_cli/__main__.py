"""``python -m zmqmq_cli`` is the ``zmqmq`` command."""

from zmqmq_cli.main import main

main()
