// The steps that go through the tilt series: one job each, or where there are many of them, several side by side over
// groups of tilt series, with the same result. Of extraction the groups' particle sets are put together, of the others the
// job that follows the groups puts together what they found. A process cannot be an argument: so four of one shape.
include { SPLIT } from '../modules/core/split'
include { MERGE_EXTRACT } from '../modules/core/merge_extract'
include { MERGE_SLABS } from '../modules/core/merge_slabs'
include { SLABS ; SLABS as SLABS_GROUP } from '../modules/relion/slabs'
include { EXTRACT ; EXTRACT as EXTRACT_GROUP } from '../modules/relion/extract'
include { RECONSTRUCT ; RECONSTRUCT as RECONSTRUCT_GROUP } from '../modules/relion/reconstruct'
include { CTF_REFINE ; CTF_REFINE as CTF_REFINE_GROUP } from '../modules/relion/ctf_refine'
include { POLISH ; POLISH as POLISH_GROUP } from '../modules/relion/polish'
include { files_of } from './states'
include { existing } from './values'

// Slabs around the picks, from tomograms that are made for them or are there.
workflow SLAB_CUTTING {
    take:
    states // [meta, state]: name, settings, plan, series, particles
    groups // whether there may be groups

    main:
    SLABS(few(states).map { meta, state -> with_tomograms(meta, state) })
    jobs = SLABS.out
    if (groups) {
        IN_GROUPS(states)
        SLABS_GROUP(IN_GROUPS.out.map { meta, state -> with_tomograms(meta, state) })
        GATHERED(SLABS_GROUP.out)
        MERGE_SLABS(states.join(GATHERED.out).map { meta, state, parts -> [meta, state.subMap(['name']), state.particles, parts] })
        jobs = jobs.mix(MERGE_SLABS.out)
    }

    emit:
    jobs // [meta, job of slabs]
}

workflow EXTRACTION {
    take:
    states // [meta, state]: name, settings, series, particles
    groups // whether there may be groups

    main:
    EXTRACT(few(states).map { meta, state -> handed(meta, state) })
    jobs = EXTRACT.out
    if (groups) {
        IN_GROUPS(states)
        EXTRACT_GROUP(IN_GROUPS.out.map { meta, state -> handed(meta, state) })
        GATHERED(EXTRACT_GROUP.out)
        MERGE_EXTRACT(states.join(GATHERED.out).map { meta, state, parts -> [meta, state.subMap(['name', 'settings']) + [lost: state.series.lost], state.series.imported, state.particles, parts] })
        jobs = jobs.mix(MERGE_EXTRACT.out)
    }

    emit:
    jobs // [meta, extract job]
}

workflow RECONSTRUCTION {
    take:
    states // [meta, state]: name, settings, series, particles
    groups // whether there may be groups

    main:
    wholes = few(states)
    if (groups) {
        IN_GROUPS(states)
        RECONSTRUCT_GROUP(IN_GROUPS.out.map { meta, state -> handed(meta, state) + [[]] })
        GATHERED(RECONSTRUCT_GROUP.out)
        wholes = wholes.mix(with_parts(states, GATHERED.out))
    }
    RECONSTRUCT(wholes.map { meta, state -> handed(meta, state) + [state.parts] })

    emit:
    RECONSTRUCT.out // [meta, reconstruct job]
}

// The sums of groups of tilt series for a map that a step of polishing is judged by; none where one job makes the map.
workflow SUMS {
    take:
    states // [meta, state]: name, settings, series, particles
    groups // whether there may be groups

    main:
    sums = few(states).map { meta, state -> [meta, state.parts] }
    if (groups) {
        IN_GROUPS(states)
        RECONSTRUCT_GROUP(IN_GROUPS.out.map { meta, state -> handed(meta, state + [may_fail: true]) + [[]] })
        GATHERED(RECONSTRUCT_GROUP.out)
        sums = sums.mix(GATHERED.out)
    }

    emit:
    sums // [meta, jobs of the groups]
}

workflow CTF_REFINEMENT {
    take:
    states // [meta, state]: name, settings, series, particles, maps, mask_job, postprocess
    groups // whether there may be groups

    main:
    wholes = few(states)
    if (groups) {
        IN_GROUPS(states)
        CTF_REFINE_GROUP(IN_GROUPS.out.map { meta, state -> handed(meta, state) + averages(state) + [[]] })
        GATHERED(CTF_REFINE_GROUP.out.map { meta, job, _particles -> [meta, job] })
        wholes = wholes.mix(with_parts(states, GATHERED.out))
    }
    CTF_REFINE(wholes.map { meta, state -> handed(meta, state) + averages(state) + [state.parts] })

    emit:
    CTF_REFINE.out // [meta, job, particle set]
}

// Bayesian polishing.
workflow ALIGNMENT {
    take:
    states // as of CTF_REFINEMENT
    groups // whether there may be groups

    main:
    wholes = few(states)
    if (groups) {
        IN_GROUPS(states)
        POLISH_GROUP(IN_GROUPS.out.map { meta, state -> handed(meta, state) + averages(state) + [[]] })
        GATHERED(POLISH_GROUP.out.map { meta, job, _particles -> [meta, job] })
        wholes = wholes.mix(with_parts(states, GATHERED.out))
    }
    POLISH(wholes.map { meta, state -> handed(meta, state) + averages(state) + [state.parts] })

    emit:
    POLISH.out // [meta, job, particle set]
}

workflow IN_GROUPS {
    take:
    states // [meta, state]: name, settings, series, particles

    main:
    many = states.filter { _meta, state -> state.settings.groups > 1 }
    SPLIT(many.map { meta, state -> [meta, [name: state.name, groups: state.settings.groups], state.series.imported, state.particles] })

    emit:
    many.join(SPLIT.out).flatMap { meta, state, sets -> members(meta, state, sets) } // the same, one per group, with its particle set
}

workflow GATHERED {
    take:
    parts // [meta of a member, job]

    main:
    gathered = parts
        .map { meta, job -> [groupKey(meta.findAll { key, _value -> !(key in ['group', 'groups']) }, meta.groups), meta.group, job] }
        .groupTuple()
        .map { key, numbers, jobs -> [key.getGroupTarget(), in_order(numbers, jobs)] }

    emit:
    gathered // [meta, jobs in the order of the groups]
}

// What every step through the tilt series is handed.
def handed(meta, state) {
    return [meta, [name: state.name, settings: state.settings, series: state.series.tables, lost: state.series.lost] + state.subMap(['may_fail'])] + files_of(state.series) + [state.particles]
}

// What a step against the current map is handed besides.
def averages(state) {
    return [state.maps, state.mask_job, state.postprocess]
}

// What cutting slabs is handed: the tomograms by their names, as the task reads them, and as files that it depends on.
def with_tomograms(meta, state) {
    def tomograms = state.plan.slabs.tomograms
    return [meta, [name: state.name, settings: state.settings, series: state.series.tables, tomograms: tomograms], state.series.imported, state.particles, existing(tomograms.files.values() + [tomograms.copick?.config].findAll())]
}

def few(states) {
    return states.filter { _meta, state -> state.settings.groups == 1 }.map { meta, state -> [meta, state + [parts: []]] }
}

def with_parts(states, jobs) {
    return states.join(jobs).map { meta, state, parts -> [meta, state + [parts: parts]] }
}

def members(meta, state, sets) {
    def all = sets instanceof List ? sets : [sets]
    return all.withIndex().collect { set, index -> [meta + [group: index + 1, groups: all.size()], state + [particles: set]] }
}

def in_order(numbers, jobs) {
    return [numbers, jobs].transpose().sort { row -> row[0] }.collect { row -> row[1] }
}
