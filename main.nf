#!/usr/bin/env nextflow
// Sub-tomogram averaging with RELION 5: aligned tilt series and picks in, the best map out.
include { STA } from './workflows/sta'

workflow {
    main:
    workflow.onComplete = {
        if (workflow.success) {
            println "Results in ${params.outdir}:\n${file("${params.outdir}/summary.txt").text}"
        }
    }
    workflow.onError = {
        // Nextflow shows only the last lines of what a task printed: the list of problems is printed whole.
        def task = (workflow.errorReport ?: '') =~ /Work dir:\s+(\S.*)/
        def problems = task ? file("${task[0][1].trim()}/problems.txt") : null
        if (problems?.exists()) {
            println "\n${problems.text}"
        }
    }
    given = params.sample_sheet
        ? [file(params.sample_sheet)] + (file(params.sample_sheet).exists() ? file(params.sample_sheet).splitCsv(header: true).findResults { row -> row.parameters ? file(row.parameters) : null } : [])
        : (params.parameter ? [file(params.parameter)] : [])
    check_configuration(params, workflow.containerEngine)
    settings = params.findAll { name, _value -> !(name in ['outdir'] + configuration()) }
    STA(
        groovy.json.JsonOutput.toJson([launch_dir: workflow.launchDir.toString(), params: new TreeMap(settings)]),
        given.findAll { path -> path.exists() },
        workflow.launchDir.toString(),
    )
}

// How and where tasks run: no part of what is computed, and so of no task's hash. The same list is in request.py.
def configuration() {
    return [
        'image', 'relion_load', 'timeout', 'slurm_partition', 'slurm_gpu_partition', 'slurm_account', 'slurm_qos', 'slurm_constraint',
        'gpu_constraint', 'cpu_constraint', 'gpu_request', 'gpu_type', 'slurm_options', 'slurm_memory_per_cpu', 'slurm_core', 'slurm_queue_size', 'slurm_poll',
    ]
}

def check_configuration(given, container_engine) {
    if (container_engine && !given.image) {
        error("There is no image.\n    to do: give --image FILE.sif, or set it once with 'py2rely config --image FILE.sif'; 'make image' builds one.")
    }
    if (container_engine && given.image.toString().startsWith('/') && !file(given.image).exists()) {
        error("The image is missing.\n    where: ${given.image}\n    to do: correct --image, or build one with 'make image'.")
    }
    if (!(given.gpu_request in ['gres', 'gpus'])) {
        error("gpu_request is '${given.gpu_request}'.\n    expected: gres (--gres=gpu:N) or gpus (--gpus=N)")
    }
}
