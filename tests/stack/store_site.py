"""An embedded store with its tables and accounts, asked by plain HTTP."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from pathlib import Path

from pipeline.clickhouse.accounts import OPERATOR
from pipeline.clickhouse.store import ClickHouseStore
from pipeline.embedded.local_accounts import LocalAccounts
from pipeline.embedded.store import EmbeddedStore, StoreSettings
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.endpoints import ClickHouseEndpoint
from tests.patience import STUCK_S


class StoreSite:
    """A store with its tables and accounts, and a file beside it that nobody may read."""

    def __init__(self, home: Path, supervisor: Supervisor) -> None:
        self.accounts = LocalAccounts(home / "keys", authenticates=True)
        self.accounts.ensure_passwords()
        self.store = EmbeddedStore(
            StoreSettings(home / "store", free_port(), passwords=self.accounts.folder), supervisor
        )
        self.store.start()
        self.secret = home / "secret.csv"
        self.secret.write_text("4242\n")
        operator = self.client(OPERATOR)
        operator.apply_migrations()
        operator.command("CREATE TABLE other (a UInt64) ENGINE = MergeTree ORDER BY a")
        operator.close()

    def client(self, account: str, password: str = "") -> ClickHouseStore:
        password = password or (self.accounts.folder / account).read_text()
        found = ClickHouseStore(ClickHouseEndpoint(self.store.url, account, password))
        found.connect(20)
        return found

    def ask(self, account: str, sql: str, **parameters: str) -> tuple[str, str]:
        """ClickHouse's code, '' where it did as asked, and the answer."""
        login = b64encode(f"{account}:{(self.accounts.folder / account).read_text()}".encode()).decode()
        url = f"{self.store.url}/?{urllib.parse.urlencode(parameters)}"
        call = urllib.request.Request(url, sql.encode(), {"Authorization": f"Basic {login}"})
        try:
            with urllib.request.urlopen(call, timeout=STUCK_S) as answer:
                return "", answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            return error.headers["X-ClickHouse-Exception-Code"], error.read().decode("utf-8", "replace")
