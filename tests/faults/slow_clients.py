"""slow_clients.py HOST PORT COUNT: COUNT connections that have sent what the first line of standard input says (JSON), in a process of
their own, whose descriptors count for nobody else. Further lines are commands: `drip` sends one more byte on each, `open` answers how
many the server has neither answered with 408 or 503 nor closed, `end` closes all."""
import json
import resource
import socket
import sys


def is_open(connection):
    try:
        while data := connection.recv(4096):
            if b" 503 " in data or b" 408 " in data:
                return False
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def main():
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    first = json.loads(sys.stdin.readline()).encode()
    connections = []
    for number in range(count):
        connection = socket.socket()
        connection.bind((f"127.0.1.{number % 4 + 1}", 0))  # several addresses: no port is needed twice
        connection.connect((host, port))
        connection.sendall(first)
        connection.setblocking(False)
        connections.append(connection)
    print("connected", flush=True)
    for command in sys.stdin:
        if command.strip() == "drip":
            for connection in connections:
                try:
                    connection.send(b"x")
                except OSError:
                    pass
            print("done", flush=True)
        elif command.strip() == "open":
            connections = [connection for connection in connections if is_open(connection)]
            print(len(connections), flush=True)
        else:
            return


main()
