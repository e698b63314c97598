// What is known of a run before its first task.
include { json } from '../subworkflows/json'

// How many levels and cycles of polishing a data set has at most: what cannot be needed is not set up, as that takes time.
// What cannot be read here counts as the most that there is; the preflight says what is wrong with it.
def most_steps(files, given) {
    def recipes = files.findAll { path -> path.exists() && path.name.endsWith('.json') }.collect { path -> parsed(path) } + [given]
    if (recipes.any { recipe -> !(recipe instanceof Map) }) {
        return [levels: 8, cycles: 10]
    }
    def lists = recipes.collect { recipe -> "${recipe.resolutions?.binning_list ?: ''}".findAll(/\d+/) }.findAll()
    def cycles = recipes.collect { recipe -> "${recipe.polishing?.cycles ?: 5}" }.findAll { text -> text ==~ /\d+/ }.collect { text -> text as int }
    def polished = given.sample_sheet || given.start != 'picks' || !lists || lists.any { list -> '1' in list }
    return [levels: (lists.collect { list -> list.size() } + [3]).max(), cycles: polished ? (cycles + [1]).max() : 1]
}

def parsed(path) {
    try {
        return json(path)
    }
    catch (Exception e) {
        return e
    }
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
