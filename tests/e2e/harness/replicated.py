"""A cluster with several coordinators over ZooKeeper."""

from . import web
from .cluster import Cluster
from .zookeeper import Ensemble, Watcher

PATH = "/tepui"


class Replicated(Cluster):
    """Like `Cluster`, but `coordinator` is whichever leads."""

    def __init__(self, label):
        self.zookeeper = None
        self.coordinators = {}
        self._settings = {}
        super().__init__(label)

    def start(self, coordinators=3, servers=1, tick=500, session_timeout="4secs", credentials=None, **settings):
        """ZooKeeper, and so many coordinators; waits until one leads and the others stand by."""
        self.zookeeper = Ensemble(self.base, servers, tick)
        self._ended.append(self.zookeeper)
        self.watcher = Watcher(self.zookeeper, PATH, credentials)
        self.url = self.zookeeper.url(PATH, credentials)
        self.session_timeout = session_timeout
        for number in range(coordinators):
            self.start_one(f"coordinator-{number}", **settings)
        self.wait_leading()
        self.wait_candidates(coordinators)
        return self

    def start_one(self, name, **settings):
        """One more coordinator, or one of the same name, directory and port again."""
        before = self.coordinators.get(name)
        if before:
            settings = {**self._settings[name], "port": before.port}
        else:
            settings = {"ip": "127.0.0.1", "hostname": "127.0.0.1", "port": 0, "work_dir": self.directory(name),
                        "zk": self.url, "zk_session_timeout": self.session_timeout, **settings}  # fmt: skip
            self._settings[name] = settings
        self.coordinators[name] = self._start(name, "coordinator", settings)
        return self.coordinators[name]

    def start_agent(self, name="agent", registered=True, **settings):
        """An agent that finds the leader by ZooKeeper."""
        settings = {"master": self.url, "zk_session_timeout": self.session_timeout, **settings}
        return super().start_agent(name, registered, **settings)

    # -- who leads

    @staticmethod
    def leads(daemon):
        """Whether it answers as leader does."""
        if not daemon.running():
            return False
        try:
            return web.get(daemon.address, "/state-summary", timeout=2).status == 200
        except OSError:
            return False

    def leading(self):
        """Names of those that answer as leaders do."""
        return [name for name, daemon in self.coordinators.items() if self.leads(daemon)]

    @property
    def coordinator(self):
        return next((self.coordinators[name] for name in self.leading()), None)

    @coordinator.setter
    def coordinator(self, _):
        pass

    def wait_leading(self, timeout=30.0, but=None):
        """The name of the one leader, other than `but`."""
        from . import wait

        def one():
            names = [name for name in self.leading() if name != but]
            return names[0] if len(names) == 1 else None

        return wait.until(one, timeout, "one coordinator leads")

    def wait_candidates(self, count, timeout=30.0):
        from . import wait

        wait.until(lambda: len(self.watcher.nodes()) == count, timeout, f"{count} coordinators stand for election")

    def daemons(self):
        servers = self.zookeeper.servers if self.zookeeper else []
        return [*self.coordinators.values(), *self.agents.values(), *servers]
