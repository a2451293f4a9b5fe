"""For every Python test: a file whose tests all skipped is reported as skipped (77), not passed."""


def pytest_sessionfinish(session, exitstatus):
    reports = session.config.pluginmanager.get_plugin("terminalreporter").stats
    # 5: a file that skipped itself before it had a test
    if exitstatus in (0, 5) and reports.get("skipped") and not reports.get("passed"):
        session.exitstatus = 77
