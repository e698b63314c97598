// A data set travels as [meta, state]: a map with names, to which each step adds what it gave.
//   plan       what every step does, as in plan.json; level: that of one binning; levels: those that are still to come
//   series     where the tilt-series tables are: tables (tomograms, motion), and the jobs that hold them: imported,
//              ctf_refine, polish; a polished tilt series travels as a whole; lost: those that the steps went on without
//   particles  the particle set (a Select job) that goes on; source: the one that the next reference is made from
//   mask, map  what the user gave: a mask instead of one from the density, a map to begin with; [] where there is none
//   extract, refinement, classes, maps, mask_job, postprocess  jobs of the present level, by their names
//   anew       whether the level searches all orientations again; from_map: whether it begins with the map
//   name, settings  of the step that is handed the state

include { json } from './values'

// The states with what a step gave them, under a name.
def named(states, results, name) {
    return states.join(results).map { meta, state, result -> [meta, state + [(name): result]] }
}

// The same with a step through the tilt series: those that it lost are lost from here on.
def through(states, results, name) {
    return states.join(results).map { meta, state, result -> [meta, state + [(name): result, series: without_lost(state.series, result)]] }
}

def without_lost(series, job) {
    return series + [lost: (series.lost + (json(job / 'job.json').lost ?: [])).unique { one -> one.tilt_series }]
}

// The states as a step takes them: its name, and which of the level's settings it uses.
def step(states, key, ending = '') {
    return states.map { meta, state -> [meta, state + [name: "${state.level.name}${ending}".toString(), settings: state.level[key]]] }
}

// One list of jobs per data set, by name, of those that stand side by side: their meta has how many, `together`.
def together(jobs) {
    return jobs
        .map { meta, job -> [groupKey(meta.findAll { key, _value -> key != 'together' }, meta.together), job] }
        .groupTuple()
        .map { key, found -> [key.getGroupTarget(), found.sort { job -> job.name }] }
}

// The jobs that hold the tilt-series tables, in the order in which processes take them.
def files_of(series) {
    return [series.imported, series.ctf_refine, series.polish]
}

// A job's particles, as tasks see them that have the job as an input.
def particles_of(job) {
    return "${job.parent.name}/${job.name}/particles.star".toString()
}

def half_maps(job) {
    return [job / 'half1.mrc', job / 'half2.mrc']
}

// A state at the first of the levels that are left. The user's map begins the first one, and those that search all
// orientations anew.
def at_next_level(state) {
    def level = state.levels[0]
    def anew = searches_anew(level, state)
    return state + [level: level + (anew ? [refine: level.refine_anew] : [:]), levels: state.levels.drop(1), tested: [], anew: anew, from_map: state.map && (anew || !state.level)]
}

// Whether a level searches all orientations: those of the one before it are not consistent, and finer pixels may tell more.
def searches_anew(level, state) {
    if (!state.tested || !level.refine_anew) {
        return false
    }
    def judgement = json(state.tested / 'job.json').orientations?.judgement
    def limited = json(state.postprocess / 'job.json').nyquist_limited
    return judgement == 'not determined' && level.refine_anew.coarse || limited && judgement in ['partly', 'not determined']
}
