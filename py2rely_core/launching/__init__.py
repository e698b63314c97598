"""How runs are started: Nextflow's command line, the site's settings, job scripts; and single RELION jobs by hand."""
