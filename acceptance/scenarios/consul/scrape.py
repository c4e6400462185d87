"""Victoria-metrics finds what to scrape through us: by consul_sd_configs and by http_sd_configs."""

import os
import shutil

from harness import Skip, check, equal, run, until

if os.environ.get("ARCHIPEL_BIN") is None:
    print("skip - scraping: the server under test is not a node")
else:
    from processes import SCRATCH
    from services import Node, Scraper

    NODE = Node("node")

    CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: consul
    consul_sd_configs: [{{server: "127.0.0.1:{port}"}}]
    relabel_configs:
      - {{source_labels: [__meta_consul_service], regex: admin, action: keep}}
      - {{source_labels: [__meta_consul_service_id], target_label: id}}
      - {{source_labels: [__meta_consul_tags], target_label: tags}}
      - {{source_labels: [__meta_consul_health], target_label: health}}
  - job_name: http
    http_sd_configs: [{{url: "http://127.0.0.1:{port}/prometheus/targets?service=admin"}}]
    relabel_configs:
      - {{source_labels: [__meta_archipel_service_id], target_label: id}}
      - {{source_labels: [__meta_archipel_tags], target_label: tags}}
      - {{source_labels: [__meta_archipel_health], target_label: health}}
"""

    class VictoriaMetrics(Scraper):
        """With that configuration."""

        def __init__(self):
            port, config = NODE.offset + 8428, os.path.join(SCRATCH, "scrape.yml")
            with open(config, "w") as file:
                file.write(CONFIG.format(port=NODE.consul_port))
            command = ["victoria-metrics", f"-promscrape.config={config}", f"-httpListenAddr=127.0.0.1:{port}"]
            command += [f"-storageDataPath={os.path.join(SCRATCH, 'scraped')}", "-promscrape.httpSDCheckInterval=1s"]
            command += ["-promscrape.consulSDCheckInterval=1s"]
            super().__init__(port, command, os.path.join(SCRATCH, "scraper.log"))

        def scraped(self, job):
            """Id, tags, health as the label says, and whether it could be scraped, of each target of the job."""
            of_job = self.targets(job) or []
            return sorted((one["labels"]["id"], one["labels"]["tags"], one["labels"]["health"], one["health"]) for one in of_job)

    def register(id):
        body = {"Name": "admin", "ID": id, "Address": "127.0.0.1", "Port": NODE.admin, "Tags": ["a", "b"]}
        NODE.put("/v1/agent/service/register", body)

    @check
    def targets_are_found_scraped_and_dropped(_):
        if shutil.which("victoria-metrics") is None:
            raise Skip("there is no victoria-metrics")
        # The second is seen by the query that waits, not by the first look.
        register("one")
        with VictoriaMetrics() as scraper:
            for job in ("consul", "http"):
                until(lambda: scraper.scraped(job) == [("one", ",a,b,", "passing", "up")], f"{job} scrapes one", 60)
            register("two")
            both = [(id, ",a,b,", "passing", "up") for id in ("one", "two")]
            for job in ("consul", "http"):
                until(lambda: scraper.scraped(job) == both, f"{job} scrapes both", 60)
            NODE.put("/v1/agent/service/deregister/one")
            for job in ("consul", "http"):
                until(lambda: scraper.scraped(job) == both[1:], f"{job} has dropped one", 60)
        NODE.put("/v1/agent/service/deregister/two")
        equal(NODE.get("/v1/catalog/services"), {})

    with NODE:
        run()
