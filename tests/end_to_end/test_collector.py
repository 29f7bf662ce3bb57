from tests.end_to_end.serving import SECRET, serving
from tests.exporters.test_otlp_receiver import simple
from tests.servers import until
import json
def test_x(ddapm_agent, tmp_path):
    with serving(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=ddapm_agent.otlp, OTEL_SERVICE_NAME="shop", OTEL_RESOURCE_ATTRIBUTES="service.version=1.0,team=web") as app:
        with app.client() as c:
            c.get("/items/3?token="+SECRET+"&page=2"); c.post("/orders/3?value=20"); c.get("/relay/4"); c.get("/fails"); c.get("/busy"); c.get("/nothing")
        app.process.terminate(); print(app.process.wait(10))
    print(app.log.read_text())
    for s in ("traces","logs","metrics"):
        print(s, json.dumps(simple(ddapm_agent.received(s)), indent=1))
    assert 0
