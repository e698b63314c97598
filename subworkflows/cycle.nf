// One cycle of polishing: CTF refinement, Bayesian polishing, refinement; each step is put to the test and built upon only
// when the map did not become worse.
include { ALIGNMENT ; CTF_REFINEMENT ; EXTRACTION } from './steps'
include { REFINE3D } from '../modules/relion/refine3d'
include { SELECT } from '../modules/core/select'
include { EVALUATE as EVALUATE_CTF ; EVALUATE as EVALUATE_POLISH ; EVALUATE as EVALUATE_REFINE } from '../modules/relion/evaluate'
include { json } from './json'

workflow CYCLE {
    take:
    starts // [meta, polishing settings, level settings, number of the cycle, state]; see 'start' of polishing.nf

    main:
    todo = starts.branch { row ->
        ctf: row[1].ctf_refine
        none: true
    }
    CTF_REFINEMENT(
        todo.ctf.map { meta, settings, _level, number, state ->
            [meta, name(number), settings.ctf_refine] + state.series + [state.particles, state.maps, state.mask, state.postprocess]
        }
    )
    tried_ctf = todo.ctf.join(CTF_REFINEMENT.out).map { meta, settings, level, number, state, job, particles ->
        [meta, settings, level, number, state, state + [series: corrected(state.series, job), particles: particles, unusable: json(job / 'job.json').unusable ?: '']]
    }
    EVALUATE_CTF(tried_ctf.map { row -> trial(row, 'ctf', 'ctf_refine') })
    after_ctf = todo.none.mix(tried_ctf.join(EVALUATE_CTF.out).map { row -> decided(row) })

    polishable = after_ctf.branch { row ->
        polish: row[1].polish
        none: true
    }
    ALIGNMENT(
        polishable.polish.map { meta, settings, _level, number, state ->
            [meta, name(number), settings.polish] + state.series + [state.particles, state.maps, state.mask, state.postprocess]
        }
    )
    tried_polish = polishable.polish.join(ALIGNMENT.out).map { meta, settings, level, number, state, job, particles ->
        [meta, settings, level, number, state, state + [series: polished(state.series, job), particles: particles, unusable: json(job / 'job.json').unusable ?: '']]
    }
    EVALUATE_POLISH(tried_polish.map { row -> trial(row, 'polish', 'polish') })
    after_polish = polishable.none.mix(tried_polish.join(EVALUATE_POLISH.out).map { row -> decided(row) })

    // Nothing to refine where nothing changed.
    refinable = after_polish.branch { row ->
        refine: row[1].refine && row[4].changed
        none: true
    }
    EXTRACTION(refinable.refine.map { meta, _settings, level, number, state -> [meta, name(number), level.extract] + state.series + [state.particles] })
    REFINE3D(
        refinable.refine.join(EXTRACTION.out).map { meta, settings, _level, number, state, extract ->
            [meta, name(number), settings.refine.findAll { key, _value -> key != 'low_pass' }, json(state.postprocess / 'job.json').low_pass,
                "Extract/${extract.name}/particles.star".toString()] + state.series +
                [extract, [], [], [state.maps / 'half1.mrc', state.maps / 'half2.mrc'], state.mask]
        }
    )
    SELECT(REFINE3D.out.map { meta, refinement -> [meta, "${refinement.name}_refine".toString(), [distance: 0.0], refinement] })
    tried_refine = refinable.refine.join(SELECT.out).map { meta, settings, level, number, state, particles ->
        [meta, settings, level, number, state, state + [particles: particles, unusable: '']]
    }
    EVALUATE_REFINE(tried_refine.map { row -> trial(row, 'refine', 'refine') })

    emit:
    states = refinable.none.mix(tried_refine.join(EVALUATE_REFINE.out).map { row -> decided(row) })
    jobs = CTF_REFINEMENT.out.map { meta, job, _particles -> [meta, job] }
        .mix(ALIGNMENT.out.map { meta, job, _particles -> [meta, job] }, EXTRACTION.out, REFINE3D.out, SELECT.out)
        .mix(
            EVALUATE_CTF.out.mix(EVALUATE_POLISH.out, EVALUATE_REFINE.out).flatMap { meta, maps, postprocess -> [[meta, maps], [meta, postprocess]] }
        )
}

def name(number) {
    return "bin1_cycle${number}".toString()
}

// The tables that a step wrote, in place of those before it.
def corrected(series, job) {
    return [series[0] + [tomograms: "CtfRefine/${job.name}/tomograms.star".toString()], series[1], job, series[3]]
}

def polished(series, job) {
    def motion = (job / 'motion.star').exists() ? "Polish/${job.name}/motion.star".toString() : series[0].motion
    return [[tomograms: "Polish/${job.name}/tomograms.star".toString(), motion: motion], series[1], series[2], job]
}

// Row: meta, settings, level, number, state before, state that is tried.
def trial(row, suffix, step) {
    def note = [cycle: row[3], step: step, tilt_series: row[5].series[0], unusable: row[5].unusable]
    return [row[0], "${name(row[3])}_${suffix}".toString(), note, row[2].subMap(['reconstruct', 'postprocess', 'size', 'pixel_size'])] +
        row[5].series + [row[5].particles, row[5].mask, row[5].best]
}

// Row: as of trial, and the trial's half maps and post-process job.
def decided(row) {
    def verdict = json(row[7] / 'job.json')
    def tried = row[5] + [maps: row[6], postprocess: row[7], changed: true]
    def state = verdict.accepted ? (verdict.judgement == 'better' ? tried + [best: row[7], improved: true] : tried) : row[4]
    return row[0..3] + [state]
}
