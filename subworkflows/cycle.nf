// One cycle of polishing: CTF refinement, Bayesian polishing, refinement; each step is put to the test and built upon only
// when the map did not become worse.
include { ALIGNMENT ; CTF_REFINEMENT ; EXTRACTION ; SUMS as SUMS_CTF ; SUMS as SUMS_POLISH ; SUMS as SUMS_REFINE } from './steps'
include { REFINE3D ; refine_inputs } from '../modules/relion/refine3d'
include { SELECT } from '../modules/core/select'
include { FREE_IMAGES } from '../modules/core/free_images'
include { JUDGE as JUDGE_CTF ; JUDGE as JUDGE_POLISH ; JUDGE as JUDGE_REFINE } from '../modules/relion/judge'
include { files_of ; half_maps ; particles_of ; through ; without_lost } from './states'
include { json } from './values'

workflow CYCLE {
    take:
    states // [meta, state]: see 'unpolished' of polishing.nf
    needs // as of needs_of

    main:
    left = states.branch { _meta, state ->
        todo: goes_on(state)
        over: true
    }
    done = left.todo
    jobs = channel.empty()
    if (needs.ctf_refine) {
        ctf = done.branch { _meta, state ->
            todo: state.polishing.ctf_refine
            none: true
        }
        CTF_REFINEMENT(ctf.todo.map { meta, state -> [meta, state + [name: name_of(state), settings: state.polishing.ctf_refine]] }, needs.groups)
        tried_ctf = ctf.todo.join(CTF_REFINEMENT.out).map { meta, state, job, particles ->
            [meta, state, state + [series: corrected(state.series, job), particles: particles, unusable: json(job / 'job.json').unusable ?: '']]
        }
        SUMS_CTF(tried_ctf.map { meta, _before, state -> [meta, averaged(state, 'ctf')] }, needs.groups)
        JUDGE_CTF(tried_ctf.join(SUMS_CTF.out).map { meta, _before, state, sums -> trial(meta, state, 'ctf', 'ctf_refine') + [sums] })
        done = ctf.none.mix(decided(tried_ctf, JUDGE_CTF.out))
        jobs = jobs.mix(CTF_REFINEMENT.out.map { meta, job, _particles -> [meta, job] }, both(JUDGE_CTF.out))
    }
    if (needs.polish) {
        polish = done.branch { _meta, state ->
            todo: state.polishing.polish
            none: true
        }
        ALIGNMENT(polish.todo.map { meta, state -> [meta, state + [name: name_of(state), settings: state.polishing.polish]] }, needs.groups)
        tried_polish = polish.todo.join(ALIGNMENT.out).map { meta, state, job, particles ->
            [meta, state, state + [series: polished(state.series, job), particles: particles, unusable: json(job / 'job.json').unusable ?: '']]
        }
        SUMS_POLISH(tried_polish.map { meta, _before, state -> [meta, averaged(state, 'polish')] }, needs.groups)
        JUDGE_POLISH(tried_polish.join(SUMS_POLISH.out).map { meta, _before, state, sums -> trial(meta, state, 'polish', 'polish') + [sums] })
        done = polish.none.mix(decided(tried_polish, JUDGE_POLISH.out))
        jobs = jobs.mix(ALIGNMENT.out.map { meta, job, _particles -> [meta, job] }, both(JUDGE_POLISH.out))
    }
    // Nothing to refine where nothing changed.
    refine = done.branch { _meta, state ->
        todo: state.polishing.refine && state.changed
        none: true
    }
    EXTRACTION(refine.todo.map { meta, state -> [meta, state + [name: name_of(state), settings: state.level.extract]] }, needs.groups)
    extracted = through(refine.todo, EXTRACTION.out, 'extract')
    REFINE3D(
        extracted.map { meta, state ->
            refine_inputs(
                meta,
                state + [
                    name: name_of(state), settings: state.polishing.refine, low_pass: json(state.postprocess / 'job.json').low_pass,
                    star: particles_of(state.extract), alignment: [], selection: [], reference: half_maps(state.maps),
                ],
            )
        }
    )
    SELECT(REFINE3D.out.map { meta, refinement -> [meta, [name: "${refinement.name}_refine".toString(), distance: 0.0], refinement] })
    tried_refine = extracted.join(SELECT.out).map { meta, state, particles -> [meta, state, state + [particles: particles, unusable: '']] }
    SUMS_REFINE(tried_refine.map { meta, _before, state -> [meta, averaged(state, 'refine')] }, needs.groups)
    JUDGE_REFINE(tried_refine.join(SUMS_REFINE.out).map { meta, _before, state, sums -> trial(meta, state, 'refine', 'refine') + [sums] })
    if (needs.free) {
        FREE_IMAGES(tried_refine.map { meta, _before, state -> [meta, state.extract.name, state.extract] })
    }

    emit:
    states = left.over.mix(refine.none.mix(decided(tried_refine, JUDGE_REFINE.out)).map { meta, state -> [meta, after_cycle(state)] })
    jobs = jobs.mix(EXTRACTION.out, REFINE3D.out, SELECT.out, both(JUDGE_REFINE.out)) // [meta, job]
}

def name_of(state) {
    return "${state.level.name}_cycle${state.cycle}".toString()
}

// Without a change the next cycle would only repeat this one.
def goes_on(state) {
    return state.cycle <= state.polishing.cycles && state.stale < state.polishing.patience && !state.unchanged
}

def after_cycle(state) {
    return state + [cycle: state.cycle + 1, stale: state.improved ? 0 : state.stale + 1, unchanged: !state.changed, changed: false, improved: false]
}

// The tables that a step wrote, in place of those before it.
def corrected(series, job) {
    return without_lost(series, job) + [tables: series.tables + [tomograms: "CtfRefine/${job.name}/tomograms.star".toString()], ctf_refine: job]
}

def polished(series, job) {
    def motion = (job / 'motion.star').exists() ? "Polish/${job.name}/motion.star".toString() : series.tables.motion
    return without_lost(series, job) + [tables: [tomograms: "Polish/${job.name}/tomograms.star".toString(), motion: motion], polish: job]
}

// The state that is tried, as its average is made.
def averaged(state, ending) {
    return state + [name: "${name_of(state)}_${ending}".toString(), settings: state.level.reconstruct]
}

// What a trial is handed: the state that is tried.
def trial(meta, state, ending, step) {
    def note = [cycle: state.cycle, step: step, tilt_series: state.series.tables, unusable: state.unusable]
    def job = [name: "${name_of(state)}_${ending}".toString(), tag: name_of(state), note: note, level: state.level.subMap(['reconstruct', 'postprocess', 'size', 'pixel_size']), series: state.series.tables]
    return [meta, job] + files_of(state.series) + [state.particles, state.mask_job, state.best.postprocess]
}

// The state that is built upon: the one that was tried, or the one before.
def decided(tried, judged) {
    return tried.join(judged).map { meta, before, state, maps, postprocess ->
        def verdict = json(postprocess / 'job.json')
        def after = state + [maps: maps, postprocess: postprocess, changed: true]
        [meta, verdict.accepted ? (verdict.judgement == 'better' ? after + [best: built(after), improved: true] : after) : before + [series: before.series + [lost: state.series.lost]]]
    }
}

// What belongs to one map, and travels together.
def built(state) {
    return state.subMap(['series', 'particles', 'maps', 'postprocess'])
}

// Both jobs of a trial.
def both(judged) {
    return judged.flatMap { meta, maps, postprocess -> [[meta, maps], [meta, postprocess]] }
}
