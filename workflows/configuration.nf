// What is known of a run before its first task.
include { json } from '../subworkflows/json'

// The files that the parameters come from: the parameter file, or the sample sheet and what it names. As in request.py, a
// name is looked up where the run is started, then beside the sheet.
def parameter_files(given) {
    if (!given.sample_sheet) {
        return given.parameter ? [file(given.parameter)].findAll { path -> path.exists() } : []
    }
    def sheet = file(given.sample_sheet)
    def names = sheet.exists() ? sheet.splitCsv(header: true, strip: true).findResults { row -> row.parameters ?: null }.unique() : []
    return ([sheet] + names.collect { name -> [file(name), sheet.parent.resolve(name)].find { path -> path.exists() } }).findAll { path -> path?.exists() }
}

// How many of its parts a run can need at most: what cannot be needed is not set up, as that takes time. What cannot be
// read here counts as the most that there is; the preflight says what is wrong with it.
//   first: whether a data set may begin with picks whose orientations are not known; rungs: levels that begin with oriented
//   particles; cycles: of polishing
def most_steps(files, given) {
    def recipes = files.drop(given.sample_sheet ? 1 : 0).collect { path -> parsed(path) } // the sheet is the first file
    recipes += given.resolutions || !recipes ? [given] : []
    if (recipes.any { recipe -> !(recipe instanceof Map) }) {
        return [first: true, rungs: 8, cycles: 10]
    }
    def lists = recipes.collect { recipe -> "${value_of(recipe, 'resolutions', 'binning_list') ?: '4,2,1'}".findAll(/\d+/) }
    def levels = (lists.collect { list -> list.size() } + [1]).max()
    def cycles = (recipes + [given]).collect { recipe -> "${value_of(recipe, 'polishing', 'cycles') ?: 5}" }.findAll { text -> text ==~ /\d+/ }.collect { text -> text as int }.max() ?: 5
    def from_picks = !given.sample_sheet && given.start == 'picks'
    def searched = from_picks && (given.reference_template || given.run_denovo_generation)
    def searches = (recipes + [given]).collect { recipe -> value_of(recipe, 'initial_reference', 'known_search') }.findAll()
    return [
        first: given.sample_sheet || searched || searches.any { search -> search != 'local' },
        rungs: searched ? levels - 1 : levels,
        cycles: from_picks && lists.every { list -> !('1' in list) } ? 0 : cycles,
    ]
}

// A field of a block, also where something else than a block was given under its name.
def value_of(recipe, block, name) {
    return recipe[block] instanceof Map ? recipe[block][name] : null
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
